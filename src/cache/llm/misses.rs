//! Outlines of the calls that were answered last, so that a miss can be explained: where it differs from the one most like
//! it. In memory only, a bounded number, and never across scopes.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::llm::outline::{Difference, Outline};

/// Calls that are remembered. Agents ask some hundreds before they repeat themselves.
const REMEMBERED_MAX: usize = 256;

/// The calls that were answered last.
#[derive(Default)]
pub(in crate::cache) struct Misses {
    latest: Mutex<VecDeque<([u8; 32], Outline)>>,
}

impl Misses {
    /// Where a call differs from the most similar one of its scope; `None` where there is none to compare it with.
    pub(super) fn compared(&self, scope: &[u8; 32], outline: &Outline) -> Option<Vec<Difference>> {
        let latest = self.latest.lock();
        let own = latest.iter().filter(|(whose, _)| whose == scope);
        own.max_by_key(|(_, known)| outline.likeness(known)).map(|(_, known)| outline.differences(known))
    }

    /// Remembers a call whose answer is stored.
    pub(super) fn remember(&self, scope: [u8; 32], outline: Outline) {
        let mut latest = self.latest.lock();
        if latest.iter().any(|(whose, known)| *whose == scope && *known == outline) {
            return;
        }
        if latest.len() >= REMEMBERED_MAX {
            latest.pop_front();
        }
        latest.push_back((scope, outline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{endpoint::Protocol, fields::Fields, json::Value};

    fn outline(body: &str) -> Outline {
        let body = Value::parse(body.as_bytes()).expect("JSON");
        Outline::of(Some(&body), &Fields::new(Protocol::Openai, &[]), [])
    }

    #[test]
    fn scopes_are_apart_and_the_latest_count() {
        let misses = Misses::default();
        misses.remember([1; 32], outline(r#"{"a":1,"b":1}"#));
        assert_eq!(misses.compared(&[2; 32], &outline("{}")), None);
        let told = misses.compared(&[1; 32], &outline(r#"{"a":1,"b":2}"#)).expect("one");
        assert_eq!(told.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/b changed"]);
        for number in 0..2 * REMEMBERED_MAX {
            misses.remember([3; 32], outline(&format!(r#"{{"a":{number}}}"#)));
        }
        assert_eq!(misses.compared(&[1; 32], &outline("{}")), None);
        assert_eq!(misses.latest.lock().len(), REMEMBERED_MAX);
    }
}
