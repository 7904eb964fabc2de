//! Numbers by their value: `1`, `1.0` and `1e0` are one, and no digit is rounded away.

use std::borrow::Cow;

/// One text for all texts of a number (RFC 8259 section 6): digits without zeros at either end, and an exponent; zero is
/// `0`, with its sign. A number whose exponent is out of all bounds stands for itself.
pub fn canonical(text: &str) -> Cow<'_, str> {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    // Most are short and whole, and end in no zero.
    let is_plain = rest.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain && (rest == "0" || !rest.ends_with('0')) {
        return Cow::Borrowed(text);
    }
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Ok(exponent) = exponent.strip_prefix('+').unwrap_or(exponent).parse::<i64>() else {
        return Cow::Borrowed(text);
    };
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Cow::Owned(format!("{sign}0"));
    }
    let moved = (digits.len() - kept.len()) as i64 - fraction.len() as i64;
    match exponent.checked_add(moved) {
        Some(0) => Cow::Owned(format!("{sign}{kept}")),
        Some(exponent) => Cow::Owned(format!("{sign}{kept}e{exponent}")),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn by_value() {
        let same: [&[&str]; 8] = [
            &["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000"],
            &["100", "1e2", "100.0", "0.001e5"],
            &["0", "0.0", "0e7", "0.000e-3"],
            &["-0", "-0.0"],
            &["-2.5", "-25e-1"],
            &["9007199254740993", "9007199254740993.0"],
            &["9007199254740992"],
            &["0.1", "1e-1"],
        ];
        for (index, group) in same.iter().enumerate() {
            for text in *group {
                for (other, texts) in same.iter().enumerate() {
                    assert_eq!(canonical(text) == canonical(texts[0]), index == other, "{text} and {}", texts[0]);
                }
            }
        }
    }

    #[test]
    fn no_digit_is_rounded_away() {
        assert_ne!(canonical("0.1"), canonical("0.10000000000000000001"));
        assert_ne!(canonical("123456789012345678901234567890"), canonical("123456789012345678901234567891"));
    }

    #[test]
    fn exponents_without_bounds() {
        for text in ["1e99999999999999999999", "1e-99999999999999999999", "10e9223372036854775807"] {
            assert_eq!(canonical(text), text);
        }
    }

    proptest! {
        #[test]
        fn prop_it_is_the_same_number(text in r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?") {
            let shown = canonical(&text);
            prop_assert_eq!(shown.parse::<f64>(), text.parse::<f64>());
            prop_assert_eq!(canonical(&shown), shown.clone());
        }

        #[test]
        fn prop_shifted(digits in 1..1_000_000_u64, places in 0..20_usize) {
            let shifted = format!("{digits}{}e-{places}", "0".repeat(places));
            let plain = digits.to_string();
            prop_assert_eq!(canonical(&shifted), canonical(&plain));
        }
    }
}
