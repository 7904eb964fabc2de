//! What Redis answers, taken apart without trust.

use redis::Value;

/// A list; anything else is an empty one.
pub(super) fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    bytes(value).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

/// A number, as one or as text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_something_else_is_nothing() {
        assert_eq!(number(&Value::Int(7)), Some(7));
        assert_eq!(number(&Value::Int(-7)), None);
        assert_eq!(number(&Value::BulkString(b"12".to_vec())), Some(12));
        assert_eq!(text(&Value::BulkString(vec![0xff])), None);
        assert_eq!(bytes(&Value::Nil), None);
        assert!(list(&Value::Nil).is_empty());
    }
}
