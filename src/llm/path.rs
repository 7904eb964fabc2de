//! Where a value stands in a body, and patterns of such places.

use std::fmt;

/// A place in a body: the way to it from the outermost value.
#[derive(Debug, Clone, Copy)]
pub struct Path<'p> {
    before: Option<&'p Self>,
    step: Step<'p>,
}

/// One step of a [`Path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'p> {
    /// Into the member of that name.
    Name(&'p str),
    /// Into that element.
    Index(usize),
}

/// One step of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Into the member of that name.
    Name(&'static str),
    /// Into any element.
    Each,
}

impl<'p> Path<'p> {
    /// A step from the outermost value.
    pub fn first(step: Step<'p>) -> Self {
        Self { before: None, step }
    }

    /// A step further.
    pub fn then<'q>(&'q self, step: Step<'q>) -> Path<'q>
    where
        'p: 'q,
    {
        Path { before: Some(self), step }
    }

    /// Steps from the outermost value.
    pub fn depth(&self) -> usize {
        1 + self.before.map_or(0, Self::depth)
    }

    /// The name of the member that it is, if it is one.
    pub fn name(&self) -> Option<&'p str> {
        match self.step {
            Step::Name(name) => Some(name),
            Step::Index(_) => None,
        }
    }

    /// What it is within.
    pub fn before(&self) -> Option<&'p Self> {
        self.before
    }

    /// Whether it is the place of a JSON pointer's steps, of which `*` is any element.
    pub fn is_at(&self, steps: &[Box<str>]) -> bool {
        let Some((last, earlier)) = steps.split_last() else { return false };
        let step = match self.step {
            Step::Name(name) => **last == *name,
            Step::Index(index) => &**last == "*" || last.parse() == Ok(index),
        };
        step && self.before.map_or(earlier.is_empty(), |before| before.is_at(earlier))
    }

    /// Whether it is one of the places a pattern means.
    pub fn is(&self, pattern: &[Part]) -> bool {
        let Some((last, earlier)) = pattern.split_last() else { return false };
        let step = match (last, self.step) {
            (Part::Name(wanted), Step::Name(name)) => *wanted == name,
            (Part::Each, Step::Index(_)) => true,
            _ => false,
        };
        step && match self.before {
            Some(before) => before.is(earlier),
            None => earlier.is_empty(),
        }
    }
}

/// As a JSON pointer (RFC 6901).
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = self.before {
            before.fmt(f)?;
        }
        match self.step {
            Step::Name(name) => write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => write!(f, "/{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_pointers() {
        let messages = Path::first(Step::Name("messages"));
        let third = messages.then(Step::Index(2));
        let name = third.then(Step::Name("a/b~c"));
        assert_eq!(name.to_string(), "/messages/2/a~1b~0c");
        assert!(name.is(&[Part::Name("messages"), Part::Each, Part::Name("a/b~c")]));
        assert!(!name.is(&[Part::Name("messages"), Part::Each]));
        assert!(!name.is(&[Part::Each, Part::Name("a/b~c")]));
        assert!(!third.is(&[Part::Name("messages"), Part::Each, Part::Each]));
        assert!(messages.is(&[Part::Name("messages")]) && !messages.is(&[]));
    }
}
