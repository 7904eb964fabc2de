//! A few field names that the fields of every message are compared with, nearly always in vain.

use http::{HeaderMap, HeaderName};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Names {
    names: Box<[HeaderName]>,
    /// A bit for each length that one of them has: most other names are told apart by it.
    lengths: u64,
}

impl Names {
    /// Whether `name` is one of them.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.lengths & bit(name) != 0 && self.names.contains(name)
    }

    /// Whether one of `fields` has such a name.
    pub fn are_in(&self, fields: &HeaderMap) -> bool {
        fields.keys().any(|name| self.contains(name))
    }

    /// All of them, in the order they were given.
    pub fn as_slice(&self) -> &[HeaderName] {
        &self.names
    }
}

impl FromIterator<HeaderName> for Names {
    fn from_iter<I: IntoIterator<Item = HeaderName>>(names: I) -> Self {
        let names: Box<[HeaderName]> = names.into_iter().collect();
        let lengths = names.iter().map(bit).fold(0, |lengths, bit| lengths | bit);
        Self { names, lengths }
    }
}

fn bit(name: &HeaderName) -> u64 {
    1 << name.as_str().len().min(63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whatever_their_length() {
        let long = "x-".to_owned() + &"y".repeat(100);
        let names: Vec<HeaderName> = ["a", "surrogate-key", &long].map(|name| name.parse().expect("a name")).into();
        let few: Names = names.iter().cloned().collect();
        assert!(names.iter().all(|name| few.contains(name)));
        for other in ["b", "cache-control", "surrogate-kez", &("x-".to_owned() + &"z".repeat(90))] {
            assert!(!few.contains(&other.parse().expect("a name")), "{other}");
        }
        assert!(!Names::default().contains(&names[0]));
        let mut fields = HeaderMap::new();
        assert!(!few.are_in(&fields));
        fields.insert("surrogate-key", http::HeaderValue::from_static("x"));
        assert!(few.are_in(&fields));
    }
}
