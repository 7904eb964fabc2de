//! The way from the root of a configuration to one of its values: `admin.tokens[1].scope`, `route["api"].path`.

use std::fmt;

/// One step of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a table.
    Key(String),
    /// Into a list.
    Index(usize),
    /// Into the list of routes, by name.
    Named(String),
}

impl Step {
    pub(super) fn as_key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Index(_) | Self::Named(_) => None,
        }
    }
}

/// The whole way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<Step>);

impl KeyPath {
    pub(super) fn root() -> Self {
        Self::default()
    }

    #[must_use]
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    #[must_use]
    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    #[must_use]
    pub(super) fn named(&self, name: &str) -> Self {
        self.with(Step::Named(name.to_owned()))
    }

    /// This way, and then `rest`.
    #[must_use]
    pub(super) fn then(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The keys, where there is no list on the way.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map_while(Step::as_key)
    }

    /// What is left of this way behind `start`, if it begins with it.
    pub(super) fn behind(&self, start: &Self) -> Option<&[Step]> {
        self.0.strip_prefix(&start.0[..])
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if number == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Named(name) => write!(f, "[{name:?}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown() {
        let path = KeyPath::root().key("route").named("api").key("cache").key("methods").index(2);
        assert_eq!(path.to_string(), r#"route["api"].cache.methods[2]"#);
        assert_eq!(path.keys().collect::<Vec<_>>(), ["route"]);
    }

    #[test]
    fn behind_a_start() {
        let path = KeyPath::root().key("cache").key("methods").index(2);
        assert_eq!(path.behind(&KeyPath::root().key("cache")).map(<[_]>::len), Some(2));
        assert_eq!(path.behind(&KeyPath::root().key("l1")), None);
    }
}
