//! Reading what Redis answered. Nothing here panics.
//!
//! What is not what was asked for is an error that says so; with `as_…`, which only look, it is nothing.

use redis::Value;

use super::error::Error;

/// The parts of a list; none of anything else.
pub fn as_list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

/// Bytes, if it is some.
pub fn as_bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// Text, if it is some.
pub fn as_text(value: &Value) -> Option<&str> {
    as_bytes(value).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

/// A number that is not below 0, also one in digits.
pub fn as_number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => as_text(other)?.parse().ok(),
    }
}

fn unexpected(wanted: &str, value: &Value) -> Error {
    let found = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) => "bytes",
        Value::Array(_) => "an array",
        Value::SimpleString(_) | Value::Okay => "a word",
        _ => "something else",
    };
    Error::Protocol(format!("{wanted} was expected, not {found}"))
}

/// The value, unless it is one that says what is wrong.
///
/// # Errors
/// What Redis said.
pub fn checked(value: Value) -> Result<Value, Error> {
    match value {
        Value::ServerError(error) => Err(Error::of_server(&error)),
        value => Ok(value),
    }
}

/// Bytes; `None` for nothing.
///
/// # Errors
/// Where it is neither.
pub fn bytes(value: Value) -> Result<Option<Vec<u8>>, Error> {
    match checked(value)? {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Okay => Ok(Some(b"OK".to_vec())),
        other => Err(unexpected("bytes", &other)),
    }
}

/// A number, also one in digits.
///
/// # Errors
/// Where it is none.
pub fn int(value: &Value) -> Result<i64, Error> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::ServerError(error) => Err(Error::of_server(error)),
        other => as_text(other).and_then(|text| text.parse().ok()).ok_or_else(|| unexpected("a number", other)),
    }
}

/// An array; an empty one for nothing.
///
/// # Errors
/// Where it is neither.
pub fn array(value: Value) -> Result<Vec<Value>, Error> {
    match checked(value)? {
        Value::Nil => Ok(Vec::new()),
        Value::Array(values) | Value::Set(values) => Ok(values),
        other => Err(unexpected("an array", &other)),
    }
}

/// Text.
///
/// # Errors
/// Where it is none, or not in UTF-8.
pub fn text(value: &Value) -> Result<&str, Error> {
    match value {
        Value::Okay => Ok("OK"),
        Value::ServerError(error) => Err(Error::of_server(error)),
        other => as_text(other).ok_or_else(|| unexpected("text", other)),
    }
}

/// The value of `name` in a flat list of names and values, as `SENTINEL MASTER` and `HGETALL` give it.
pub fn field<'a>(pairs: &'a [Value], name: &str) -> Option<&'a Value> {
    pairs.chunks_exact(2).find(|pair| text(&pair[0]).is_ok_and(|found| found == name)).map(|pair| &pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        assert_eq!(bytes(Value::Nil), Ok(None));
        assert_eq!(bytes(Value::BulkString(vec![0, 1])), Ok(Some(vec![0, 1])));
        assert_eq!(int(&Value::Int(-3)), Ok(-3));
        assert_eq!(int(&Value::BulkString(b"42".to_vec())), Ok(42));
        assert_eq!(text(&Value::Okay), Ok("OK"));
        assert_eq!(array(Value::Nil), Ok(Vec::new()));
        let pairs = [Value::SimpleString("a".into()), Value::Int(1), Value::SimpleString("b".into()), Value::Int(2)];
        assert_eq!(field(&pairs, "b"), Some(&Value::Int(2)));
        assert_eq!(field(&pairs[..3], "b"), None);
    }

    #[test]
    fn says_what_was_expected() {
        let error = int(&Value::BulkString(b"4x".to_vec())).expect_err("no number");
        assert_eq!(error.to_string(), "answer of Redis: a number was expected, not bytes");
        assert!(text(&Value::BulkString(vec![0xff])).is_err());
        assert!(array(Value::Int(1)).is_err());
        let refused = redis::parse_redis_value(b"-WRONGTYPE no\r\n").expect("a value");
        assert_eq!(bytes(refused).expect_err("refused").code(), Some("WRONGTYPE"));
    }

    #[test]
    fn what_is_something_else_is_nothing() {
        assert_eq!(as_number(&Value::Int(7)), Some(7));
        assert_eq!(as_number(&Value::Int(-7)), None);
        assert_eq!(as_number(&Value::BulkString(b"12".to_vec())), Some(12));
        assert_eq!(as_text(&Value::BulkString(vec![0xff])), None);
        assert_eq!(as_bytes(&Value::Nil), None);
        assert!(as_list(&Value::Nil).is_empty());
    }
}
