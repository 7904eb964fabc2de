//! `traceparent` (W3C Trace Context, section 3.2): which trace a request belongs to, and which span it comes from.

use std::fmt;

/// `00-<32 hexadecimal digits>-<16>-<2>`.
const LENGTH: usize = 55;
/// The flag that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// A trace. Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// A span within one. Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace: TraceId,
    /// The span of it that made the request.
    pub span: SpanId,
    /// Whether that trace is recorded.
    pub sampled: bool,
}

impl TraceId {
    /// A new one; `None` where the system has no randomness.
    pub fn make() -> Option<Self> {
        random().filter(is_set).map(Self)
    }

    /// A number that is the same for all spans of the trace, and evenly spread.
    pub fn number(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl SpanId {
    /// A new one; `None` where the system has no randomness.
    pub fn make() -> Option<Self> {
        random().filter(is_set).map(Self)
    }
}

impl Parent {
    /// What a `traceparent` says; `None` where it says nothing that can be understood.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let fields = value.get(..LENGTH)?;
        let (version, flags) = (number::<1>(&fields[..2])?[0], number::<1>(&fields[53..])?[0]);
        // A later version may say more behind a further hyphen; 255 is none.
        let ends = value.len() == LENGTH || (version > 0 && value[LENGTH] == b'-');
        if version == 255 || !ends || [2, 35, 52].iter().any(|&place| fields[place] != b'-') {
            return None;
        }
        let (trace, span) = (number::<16>(&fields[3..35])?, number::<8>(&fields[36..52])?);
        let sampled = flags & SAMPLED != 0;
        (is_set(&trace) && is_set(&span)).then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The value of a `traceparent`.
impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok().map(|()| bytes)
}

fn is_set<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes.iter().any(|&byte| byte != 0)
}

/// Hexadecimal digits, in lower case as they have to be.
fn number<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn understood_and_written_again() {
        let text = format!("00-{TRACE}-b7ad6b7169203331-01");
        let parent = Parent::parse(text.as_bytes()).expect("a traceparent");
        assert_eq!((parent.to_string(), parent.trace.to_string()), (text, TRACE.to_owned()));
        assert!(!Parent::parse(format!("00-{TRACE}-b7ad6b7169203331-02").as_bytes()).expect("one").sampled);
        assert!(Parent::parse(format!("01-{TRACE}-b7ad6b7169203331-01-more").as_bytes()).is_some(), "a later version");
    }

    #[test]
    fn what_is_none_is_left_alone() {
        for text in [
            String::new(),
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            format!("01-{TRACE}-b7ad6b7169203331-01more"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00_{TRACE}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-b7ad6b716920333g-01"),
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            Parent::parse(&bytes);
        }
    }
}
