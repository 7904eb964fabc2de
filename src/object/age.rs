//! The age a response already has when it arrives (RFC 9111 section 4.2.3), to the millisecond.

use std::time::Duration;

use http::{HeaderMap, header::AGE};

use super::{directives::delta_seconds, time::Timestamp};

/// `corrected_initial_age` of a response whose `Date` is `date`: the larger of what that and what `Age` and the time
/// the response took say.
///
/// `Date` is written in whole seconds, so it stands for any instant of its second. It counts as the last of them:
/// otherwise a response from the origin's own hands would appear up to a second old for no other reason than rounding,
/// and the response delay covers what is really unknown.
pub fn corrected_initial(
    headers: &HeaderMap,
    date: Option<Timestamp>,
    request_time: Timestamp,
    response_time: Timestamp,
) -> Duration {
    let second = Duration::from_secs(1);
    let apparent_age = date.map_or(Duration::ZERO, |date| response_time.since(date).saturating_sub(second));
    let response_delay = response_time.since(request_time);
    apparent_age.max(value(headers).saturating_add(response_delay))
}

/// `age_value`: the first member of the first line; anything but a number of seconds counts as absent (section 5.1).
fn value(headers: &HeaderMap) -> Duration {
    let first = headers.get(AGE).and_then(|line| line.as_bytes().split(|&byte| byte == b',').next());
    Duration::from_secs(first.and_then(|member| delta_seconds(member.trim_ascii())).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::DATE};
    use proptest::prelude::*;

    use super::{super::date, *};

    fn corrected_initial(headers: &HeaderMap, request_time: Timestamp, response_time: Timestamp) -> Duration {
        let date = date::of(headers, &DATE, response_time);
        super::corrected_initial(headers, date, request_time, response_time)
    }

    const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_900);

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn age_of(lines: &[&str]) -> Duration {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AGE, HeaderValue::from_str(line).unwrap());
        }
        corrected_initial(&headers, NOW, NOW)
    }

    #[test]
    fn age_parse() {
        for (lines, secs) in [
            (&["7200"][..], 7200),
            (&[" 7200 "], 7200),
            (&["007200"], 7200),
            (&["abc"], 0),
            (&["-7200"], 0),
            (&["+7200"], 0),
            (&["7200.0"], 0),
            (&["7200;foo=bar"], 0),
            (&[""], 0),
            (&[", 7200"], 0),
            (&["7200, 0"], 7200),
            (&["0, 7200"], 0),
            (&["7200", "0"], 7200),
            (&["0", "7200"], 0),
            (&["0, 0"], 0),
            (&["0", "0"], 0),
            (&["3600", "3600"], 3600),
            (&["2147483647"], 2_147_483_647),
            (&["2147483648"], 2_147_483_648),
            (&["2147483649"], 2_147_483_648),
            (&["18446744073709551616"], 2_147_483_648),
        ] {
            assert_eq!(age_of(lines), Duration::from_secs(secs), "{lines:?}");
        }
    }

    #[test]
    fn the_larger_of_date_and_age_counts() {
        let date = |secs: u64| date::format(Timestamp::from_secs(NOW.as_secs() - secs)).to_str().unwrap().to_owned();
        let age = |lines: &[(&'static str, &str)]| corrected_initial(&headers(lines), NOW, NOW).as_millis();
        assert_eq!(age(&[("date", &date(0))]), 0, "0.9 s are less than the resolution of Date");
        assert_eq!(age(&[("date", &date(1))]), 900);
        assert_eq!(age(&[("date", &date(7200))]), 7_199_900);
        assert_eq!(age(&[("date", &date(7200)), ("age", "100")]), 7_199_900);
        assert_eq!(age(&[("date", &date(7200)), ("age", "9000")]), 9_000_000);
        assert_eq!(age(&[("date", "foo"), ("age", "9")]), 9_000);
        assert_eq!(age(&[("date", "Thu, 18 Aug 2050 02:01:18 GMT")]), 0, "a clock that is fast");
    }

    #[test]
    fn the_time_the_response_took_counts_in_full() {
        let asked = NOW.minus(Duration::from_millis(1_234));
        assert_eq!(corrected_initial(&HeaderMap::new(), asked, NOW).as_millis(), 1_234);
        assert_eq!(corrected_initial(&headers(&[("age", "30")]), asked, NOW).as_millis(), 31_234);
        assert_eq!(corrected_initial(&HeaderMap::new(), NOW, asked), Duration::ZERO, "a clock set back");
    }

    proptest! {
        #[test]
        fn never_panics(age: Vec<u8>, date: Vec<u8>, asked: u64, now: u64) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(AGE, age), (DATE, date)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            corrected_initial(&headers, Timestamp::from_millis(asked), Timestamp::from_millis(now));
        }
    }
}
