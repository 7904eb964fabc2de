//! Accept-Encoding and Accept-Language by meaning, so that requests that mean the same share a variant.
//!
//! What is malformed or unknown is not normalised; the caller compares it byte for byte instead.

use super::fields::{members, trim};

/// Ranges in one Accept-Language that are taken apart.
const LANGUAGES_MAX: usize = 32;

/// The content codings a client accepts.
///
/// How much it likes each is left out: any response made for an equal set is acceptable to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Encodings(u8);

impl Encodings {
    /// `*`: those without a bit of their own.
    const OTHER: u8 = 1 << 7;
    const IDENTITY: u8 = 1;
    const ALL: u8 = Self::OTHER | 0b1_1111;

    /// As a number.
    pub(super) fn bits(self) -> u8 {
        self.0
    }

    fn bit(coding: &[u8]) -> Option<u8> {
        const NAMES: [(&[u8], u8); 7] = [
            (b"identity", Encodings::IDENTITY),
            (b"gzip", 1 << 1),
            (b"x-gzip", 1 << 1),
            (b"br", 1 << 2),
            (b"zstd", 1 << 3),
            (b"deflate", 1 << 4),
            (b"*", Encodings::OTHER),
        ];
        NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(coding)).map(|&(_, bit)| bit)
    }
}

/// Reads Accept-Encoding (RFC 9110 section 12.5.3); `None` if it is malformed, contradicts itself or names a coding we
/// know nothing of.
pub(super) fn encodings(value: &[u8]) -> Option<Encodings> {
    let (mut accepted, mut refused) = (0, 0);
    for member in members(value) {
        let (coding, quality) = weighted(member)?;
        let bit = Encodings::bit(coding)?;
        if (accepted | refused) & bit != 0 {
            return None;
        }
        *(if quality > 0 { &mut accepted } else { &mut refused }) |= bit;
    }
    if accepted & Encodings::OTHER != 0 {
        accepted = Encodings::ALL & !refused;
    } else if (accepted | refused) & Encodings::IDENTITY == 0 && refused & Encodings::OTHER == 0 {
        accepted |= Encodings::IDENTITY;
    }
    Some(Encodings(accepted))
}

/// The language ranges of one Accept-Language, the most wanted first.
#[derive(Debug)]
pub(super) struct Languages(Vec<(u16, String)>);

impl Languages {
    /// Reads Accept-Language (RFC 9110 section 12.5.4); `None` if it is malformed or overly long.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let mut ranges = Vec::new();
        for member in members(value) {
            let (range, quality) = weighted(member)?;
            if ranges.len() == LANGUAGES_MAX || !is_range(range) {
                return None;
            }
            ranges.push((quality, String::from_utf8_lossy(range).to_ascii_lowercase()));
        }
        ranges.sort_unstable_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        ranges.dedup();
        Some(Self(ranges))
    }

    /// The same for all values of the same meaning: ranks count, the numbers behind them do not. Equally wanted ranges
    /// are separated by commas, ranks by semicolons; refused ones follow an exclamation mark.
    pub(super) fn canonical(&self) -> String {
        let mut text = String::with_capacity(self.0.iter().map(|(_, range)| range.len() + 1).sum::<usize>() + 1);
        let mut rank = None;
        for (quality, range) in &self.0 {
            match rank.replace(*quality) {
                Some(before) if before == *quality => text.push(','),
                Some(_) => text.push(';'),
                None => {}
            }
            if *quality == 0 {
                text.push('!');
            }
            text.push_str(range);
        }
        text
    }

    /// Whether `language` (in lower case) is as good as anything the client could get: what speaks of it most
    /// precisely, itself or a prefix of it (RFC 4647 section 3.3.1), is wanted most. A mere `*` does not name it.
    pub(super) fn prefers(&self, language: &str) -> bool {
        let matches =
            |range: &str| language.strip_prefix(range).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let best = self.0.first().map_or(0, |(quality, _)| *quality);
        let precise = self.0.iter().filter(|(_, range)| matches(range)).max_by_key(|(_, range)| range.len());
        precise.is_some_and(|(quality, _)| *quality > 0 && *quality == best)
    }
}

/// A language range: `*` or alphanumeric subtags.
fn is_range(range: &[u8]) -> bool {
    range == b"*" || (!range.is_empty() && range.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-'))
}

/// A list member and its weight in thousandths (RFC 9110 section 12.4.2).
fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let Some(at) = member.iter().position(|&byte| byte == b';') else { return Some((member, 1000)) };
    let (value, parameter) = (trim(&member[..at]), trim(&member[at + 1..]));
    match parameter {
        [b'q' | b'Q', b'=', quality @ ..] => Some((value, thousandths(quality)?)),
        _ => None,
    }
}

fn thousandths(quality: &[u8]) -> Option<u16> {
    let (whole, decimals) = match quality {
        [whole @ b'0'..=b'1'] => (whole, &[][..]),
        [whole @ b'0'..=b'1', b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut value = u16::from(whole - b'0') * 1000;
    for (digit, unit) in decimals.iter().zip([100, 10, 1]) {
        value += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * unit;
    }
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::fields::tests::any_value, *};

    #[test]
    fn weights() {
        let table = [("1", 1000), ("0", 0), ("0.5", 500), ("0.05", 50), ("0.001", 1), ("1.000", 1000), ("0.", 0)];
        for (text, value) in table {
            assert_eq!(thousandths(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["", "2", "1.001", "0.0001", ".5", "-1", "0,5", "0.x"] {
            assert_eq!(thousandths(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn encodings_are_sets() {
        let of = |text: &str| encodings(text.as_bytes()).map(Encodings::bits);
        assert_eq!(of(""), Some(0b1));
        assert_eq!(of("gzip, deflate, br, zstd"), Some(0b1_1111));
        assert_eq!(of("zstd;q=0.1,br , DEFLATE;Q=1, x-gzip"), Some(0b1_1111));
        assert_eq!(of("gzip, identity;q=0"), Some(0b10));
        assert_eq!(of("gzip, *;q=0"), Some(0b10));
        assert_eq!(of("identity, *;q=0"), Some(0b1));
        assert_eq!(of("*"), Some(Encodings::ALL));
        assert_eq!(of("*, br;q=0"), Some(Encodings::ALL & !0b100));
        for text in ["gzip, dcb", "gzip;q=2", "gzip;level=9", "gzip, x-gzip", "gzip;q=0, gzip"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn languages_are_ranks() {
        let of = |text: &str| Languages::parse(text.as_bytes()).map(|languages| languages.canonical());
        assert_eq!(of("en, de"), of(" De ,en;q=1.0"));
        assert_eq!(of("fr;q=0.5, de").as_deref(), Some("de;fr"));
        assert_eq!(of("fr;q=0.5, de, *;q=0, en").as_deref(), Some("de,en;fr;!*"));
        assert_ne!(of("de;q=0"), of("de"));
        for text in ["de;q=x", "de;v=1", "d e", "dé"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(of(&vec!["de"; LANGUAGES_MAX + 1].join(",")), None);
    }

    #[test]
    fn preferred_languages() {
        let table = [
            ("fr;q=0.5, de;q=1.0", "de", true),
            ("fr;q=0.5, de;q=1.0", "fr", false),
            ("en, de", "de", true),
            ("de", "de-ch", true),
            ("de", "den", false),
            ("de-CH", "de", false),
            ("de, de-AT;q=0", "de-at", false),
            ("de, de-AT;q=0.5", "de-at-vienna", false),
            ("*, de;q=0.5", "de", false),
            ("*", "de", false),
            ("de;q=0", "de", false),
            ("", "de", false),
        ];
        for (value, language, expected) in table {
            let found = Languages::parse(value.as_bytes()).is_some_and(|languages| languages.prefers(language));
            assert_eq!(found, expected, "{value} {language}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in any_value(), language in "[a-z-]{0,6}") {
            encodings(value.as_bytes());
            if let Some(languages) = Languages::parse(value.as_bytes()) {
                languages.canonical();
                languages.prefers(&language);
            }
        }

        #[test]
        fn order_of_equals_does_not_matter(mut tags in proptest::collection::vec("[a-z]{2}(-[a-z]{2})?", 1..6)) {
            let forth = Languages::parse(tags.join(",").as_bytes()).map(|languages| languages.canonical());
            tags.reverse();
            let back = Languages::parse(tags.join(" , ").as_bytes()).map(|languages| languages.canonical());
            prop_assert!(forth.is_some());
            prop_assert_eq!(forth, back);
        }
    }
}
