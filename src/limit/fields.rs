//! What clients are told of limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), and
//! `Retry-After` where they are refused.
//!
//! Both are lists, and a list may come in several lines. So what an origin says of its own limits stays as it is, and
//! what holds here stands beside it.

use std::io::Write;

use http::HeaderName;

use super::gcra::Rate;

/// `RateLimit-Policy`.
pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// `RateLimit`.
pub const LEFT: HeaderName = HeaderName::from_static("ratelimit");

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds as whole seconds, rounded up, and at least one: to ask again sooner is of no use.
pub(super) fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(SECOND).max(1)
}

/// Adds a policy to a list: its quota is the burst, and its window the time in which that is made up for, so that what
/// is left never exceeds the quota. Tokens are a unit (`qu`) that the draft's registry does not have: it is left out.
pub(super) fn write_policy(name: &str, rate: &Rate, list: &mut Vec<u8>) {
    separate(list);
    // Writing to memory cannot fail. Names are such that they need no escape.
    let _ = write!(list, "\"{name}\";q={};w={}", rate.burst(), seconds(rate.window()));
}

/// Adds how much is left to a list, and in how many nanoseconds there is all of it again, or something.
pub(super) fn write_left(name: &str, left: u64, reset: u64, list: &mut Vec<u8>) {
    separate(list);
    for piece in [b"\"", name.as_bytes(), b"\";r=", itoa::Buffer::new().format(left).as_bytes(), b";t="] {
        list.extend_from_slice(piece);
    }
    list.extend_from_slice(itoa::Buffer::new().format(reset.div_ceil(SECOND)).as_bytes());
}

fn separate(list: &mut Vec<u8>) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn they_are_structured_fields() {
        let mut policy = Vec::new();
        write_policy("a", &Rate::new(100, Duration::from_mins(1), 100), &mut policy);
        write_policy("b.2", &Rate::new(100, Duration::from_mins(1), 10), &mut policy);
        assert_eq!(String::from_utf8_lossy(&policy), "\"a\";q=100;w=60, \"b.2\";q=10;w=6");
        let mut left = Vec::new();
        write_left("a", 99, 600_000_000, &mut left);
        write_left("b.2", 0, 0, &mut left);
        assert_eq!(String::from_utf8_lossy(&left), "\"a\";r=99;t=1, \"b.2\";r=0;t=0");
        for list in [policy, left] {
            let parsed = sfv::Parser::new(&list).parse::<sfv::List>().expect("a list");
            assert_eq!(parsed.len(), 2);
        }
    }

    #[test]
    fn nobody_is_told_to_ask_again_at_once() {
        assert_eq!([0, 1, SECOND, SECOND + 1].map(seconds), [1, 1, 1, 2]);
    }
}
