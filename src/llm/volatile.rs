//! Texts in requests that change from call to call and mean nothing to the answer. They are left out of keys; what is sent
//! is not touched.

use std::sync::LazyLock;

use regex::Regex;

use super::path::Path;

/// A place, and what is volatile there.
#[derive(Debug, Clone)]
pub struct Volatile {
    /// Steps of a JSON pointer, `*` for any element.
    steps: Vec<Box<str>>,
    pattern: Regex,
}

/// Why a text is no such rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Without a pointer and a pattern.
    #[error("not a JSON pointer, a blank and a regular expression, such as \"/system/0/text ^x-id: .*\"")]
    Form,
    /// Not a pattern.
    #[error("not a regular expression: {0}")]
    Pattern(String),
}

/// Known ones: the line that Claude Code puts first into its system prompt, with a number that changes on every call.
pub static KNOWN: LazyLock<Vec<Volatile>> = LazyLock::new(|| {
    let rules = ["/system/*/text", "/system", "/messages/*/content", "/messages/*/content/*/text"];
    let rule = |pointer: &str| Volatile::parse(&format!("{pointer} ^x-anthropic-billing-header:[^\\n]*"));
    rules.into_iter().filter_map(|pointer| rule(pointer).ok()).collect()
});

impl Volatile {
    /// From `POINTER PATTERN`.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let (pointer, pattern) = text.split_once(' ').ok_or(Invalid::Form)?;
        let steps = pointer.strip_prefix('/').ok_or(Invalid::Form)?.split('/');
        let pattern = Regex::new(pattern).map_err(|error| Invalid::Pattern(error.to_string()))?;
        Ok(Self { steps: steps.map(|step| step.replace("~1", "/").replace("~0", "~").into()).collect(), pattern })
    }

    /// The text at `path` without what is volatile in it; `None` where nothing is.
    pub fn masked(&self, path: &Path<'_>, text: &str) -> Option<String> {
        if !path.is_at(&self.steps) || !self.pattern.is_match(text) {
            return None;
        }
        Some(self.pattern.replace_all(text, "").into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{canonical, endpoint::Protocol, fields::Fields, json::Value};

    fn form(volatile: &[Volatile], body: &str) -> Vec<u8> {
        let mut form = Vec::new();
        let body = Value::parse(body.as_bytes()).expect("JSON");
        canonical::write(&body, &Fields::new(Protocol::Anthropic, volatile), &mut form);
        form
    }

    #[test]
    fn the_line_of_claude_code() {
        let body = |number: &str, text: &str| {
            format!(
                r#"{{"system":[{{"type":"text","text":"x-anthropic-billing-header: cc_version=2; cch={number};\n{text}"}}]}}"#
            )
        };
        assert_eq!(form(&KNOWN, &body("a1b2c", "You are")), form(&KNOWN, &body("d3e4f", "You are")));
        assert_ne!(form(&KNOWN, &body("a1b2c", "You are")), form(&KNOWN, &body("a1b2c", "You were")));
        assert_ne!(form(&[], &body("a1b2c", "You are")), form(&[], &body("d3e4f", "You are")));
    }

    #[test]
    fn rules_of_an_operator() {
        let rules = [Volatile::parse(r"/messages/0/content (?i)request \d+").expect("a rule")];
        let body = |index: usize, text: &str| {
            let before = r#"{"content":"x"},"#.repeat(index);
            format!(r#"{{"messages":[{before}{{"content":"{text}"}}]}}"#)
        };
        assert_eq!(form(&rules, &body(0, "Request 1: hi")), form(&rules, &body(0, "request 22: hi")));
        assert_ne!(form(&rules, &body(1, "request 1: hi")), form(&rules, &body(1, "request 22: hi")), "elsewhere");
        assert_ne!(form(&rules, &body(0, ": hi")), form(&rules, &body(0, "request 1: hi")), "masked is not absent");
        assert_eq!(Volatile::parse("messages x").err(), Some(Invalid::Form));
        assert!(matches!(Volatile::parse("/a ("), Err(Invalid::Pattern(_))));
    }
}
