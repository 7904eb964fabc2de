//! `HTTP-date` (RFC 9110 section 5.6.7).
//!
//! Reads exactly the three forms of the grammar, in any letter case, and nothing that merely resembles them: a sloppy
//! `Expires` means "already expired", so leniency would keep what must go. The name of the day is not checked against
//! the date; the number decides. Dates before 1970 become the epoch.

use std::{cell::Cell, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use httpdate::HttpDate;

use super::time::Timestamp;

/// Length of an `IMF-fixdate`.
const FIXDATE: usize = 29;
/// Last second that four digits of a year can express.
const LAST_SECOND: u64 = 253_402_300_799;
/// The two-digit years of RFC 850 dates end here where no present is known, so that all fall in 1970 to 2069.
const CENTURY_END: i64 = 2069;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A date, or `None` if it follows none of the three forms. Two-digit years mean 1970 to 2069.
pub fn parse(value: &[u8]) -> Option<Timestamp> {
    parse_until(value, CENTURY_END)
}

/// A date read at `now`: a two-digit year that would be more than 50 years ahead is one of the past.
pub fn parse_at(value: &[u8], now: Timestamp) -> Option<Timestamp> {
    // The mean length of a Gregorian year is exact enough for a rule of "about half a century".
    let year = 1970 + i64::try_from(now.as_secs().min(LAST_SECOND) / 31_556_952).unwrap_or(0);
    parse_until(value, year + 50)
}

/// The date in a field that may appear once: `None` if it is absent, repeated or invalid.
pub fn of(headers: &HeaderMap, name: &HeaderName, now: Timestamp) -> Option<Timestamp> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => parse_at(line.as_bytes(), now),
        _ => None,
    }
}

/// As `IMF-fixdate`, rounded down to the second and at most the end of the year 9999.
pub fn format(time: Timestamp) -> HeaderValue {
    let time = SystemTime::from(Timestamp::from_secs(time.as_secs().min(LAST_SECOND)));
    HeaderValue::try_from(HttpDate::from(time).to_string()).expect("a date consists of visible ASCII")
}

fn parse_until(value: &[u8], century_end: i64) -> Option<Timestamp> {
    let value = value.trim_ascii();
    fixdate(value).or_else(|| rfc850_date(value, century_end)).or_else(|| asctime_date(value))
}

thread_local! {
    /// The dates read last: origins write the same one for a second, and every response's is read more than once.
    static READ_LAST: [Cell<([u8; FIXDATE], Timestamp)>; 8] = const { [const { Cell::new(([0; FIXDATE], Timestamp::EPOCH)) }; 8] };
}

/// As [`imf_fixdate`].
fn fixdate(value: &[u8]) -> Option<Timestamp> {
    let text = <[u8; FIXDATE]>::try_from(value).ok()?;
    // By the last digits of day and second.
    let place = usize::from(text[6] ^ text[24]) % 8;
    READ_LAST.with(|dates| {
        let (known, time) = dates[place].get();
        if known == text {
            return Some(time);
        }
        let time = imf_fixdate(value)?;
        dates[place].set((text, time));
        Some(time)
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(value: &[u8]) -> Option<Timestamp> {
    let (day_name, rest) = value.split_at_checked(3)?;
    let separators = rest.len() == 26 && rest.starts_with(b", ") && [rest[4], rest[8], rest[13]] == *b"   ";
    if !(separators && is_day(day_name, 3) && is_gmt(&rest[22..])) {
        return None;
    }
    instant(number(&rest[9..13])?, month(&rest[5..8])?, number(&rest[2..4])?, &rest[14..22])
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850_date(value: &[u8], century_end: i64) -> Option<Timestamp> {
    let comma = memchr::memchr(b',', value)?;
    let (day_name, rest) = value.split_at(comma);
    let separators = rest.len() == 24 && rest.starts_with(b", ") && [rest[4], rest[8], rest[11]] == *b"-- ";
    if !(separators && is_day(day_name, usize::MAX) && is_gmt(&rest[20..])) {
        return None;
    }
    let year = century_end - (century_end - number(&rest[9..11])?).rem_euclid(100);
    instant(year, month(&rest[5..8])?, number(&rest[2..4])?, &rest[12..20])
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_date(value: &[u8]) -> Option<Timestamp> {
    let (day_name, rest) = value.split_at_checked(3)?;
    let separators = rest.len() == 21 && [rest[0], rest[4], rest[7], rest[16]] == *b"    ";
    if !(separators && is_day(day_name, 3)) {
        return None;
    }
    let day = if rest[5] == b' ' { number(&rest[6..7])? } else { number(&rest[5..7])? };
    instant(number(&rest[17..])?, month(&rest[1..4])?, day, &rest[8..16])
}

/// Whether it is the name of a day, abbreviated to `length` letters or in full.
fn is_day(name: &[u8], length: usize) -> bool {
    // Nearly every date is written so.
    if let (3, [a, b, c]) = (length, name)
        && matches!(&[*a, *b, *c], b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun")
    {
        return true;
    }
    DAYS.iter().any(|day| day.as_bytes()[..day.len().min(length)].eq_ignore_ascii_case(name))
}

fn is_gmt(rest: &[u8]) -> bool {
    rest.eq_ignore_ascii_case(b" GMT")
}

/// 1 to 12.
fn month(name: &[u8]) -> Option<i64> {
    let exactly = MONTHS.iter().position(|month| month.as_bytes() == name);
    let index = exactly.or_else(|| MONTHS.iter().position(|month| month.as_bytes().eq_ignore_ascii_case(name)))?;
    i64::try_from(index + 1).ok()
}

/// A number of digits only; callers pass at most four.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, &digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// The instant of a date and a `time-of-day`, `08:49:37`.
fn instant(year: i64, month: i64, day: i64, time: &[u8]) -> Option<Timestamp> {
    if [time[2], time[5]] != *b"::" || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let (hour, minute, second) = (number(&time[..2])?, number(&time[3..5])?, number(&time[6..])?);
    // A leap second is the first second of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let secs = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Timestamp::from_secs(u64::try_from(secs).unwrap_or(0)))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar: years begin in March, so that the leap day is the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-20T00:00:00Z
    const NOW: Timestamp = Timestamp::from_secs(1_795_132_800);

    fn at(value: &str) -> Option<u64> {
        parse_at(value.as_bytes(), NOW).map(Timestamp::as_secs)
    }

    #[test]
    fn all_three_forms_in_any_case() {
        for value in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 NOV 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 gMT",
            "sunday, 06-nov-94 08:49:37 gmt",
            "sun nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
            // The wrong day of the week.
            "Mon, 06 Nov 1994 08:49:37 GMT",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(at(value), Some(784_111_777), "{value}");
            assert_eq!(parse(value.as_bytes()), parse_at(value.as_bytes(), NOW), "{value}");
        }
    }

    #[test]
    fn far_away_dates() {
        assert_eq!(at("Tue, 19 Jan 2038 14:14:08 GMT"), Some(2_147_523_248));
        assert_eq!(at("Sun, 21 Nov 2286 04:46:39 GMT"), Some(10_000_039_599));
        assert_eq!(at("Thu, 18 Aug 2050 02:01:18 GMT"), Some(2_544_400_878));
        assert_eq!(at("Thursday, 18-Aug-50 02:01:18 GMT"), Some(2_544_400_878));
        assert_eq!(at("Thu Aug 18 02:01:18 2050"), Some(2_544_400_878));
        assert_eq!(at("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LAST_SECOND));
        assert_eq!(at("Mon, 01 Jan 0001 00:00:00 GMT"), Some(0));
        assert_eq!(at("Wed, 31 Dec 1969 23:59:59 GMT"), Some(0));
        assert_eq!(at("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400));
        assert_eq!(at("Sat, 31 Dec 2016 23:59:60 GMT"), Some(1_483_228_800));
    }

    #[test]
    fn two_digit_years_are_at_most_50_years_ahead() {
        for (year, full) in [("76", "2076"), ("77", "1977"), ("99", "1999"), ("00", "2000"), ("26", "2026")] {
            let value = format!("Thursday, 09-Jan-{year} 00:00:00 GMT");
            assert_eq!(at(&value), at(&format!("Thu, 09 Jan {full} 00:00:00 GMT")), "{value}");
        }
        for (year, full) in [("69", "2069"), ("70", "1970")] {
            let value = format!("Thursday, 09-Jan-{year} 00:00:00 GMT");
            assert_eq!(
                parse(value.as_bytes()),
                parse(format!("Thu, 09 Jan {full} 00:00:00 GMT").as_bytes()),
                "{value}"
            );
        }
    }

    #[test]
    fn what_only_resembles_a_date() {
        for value in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18 +0000",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18-Aug-50 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:60:18 GMT",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Thu, 29 Feb 2100 00:00:00 GMT",
            "Foo, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Foo 2050 02:01:18 GMT",
            "Thu, 18 Aug +050 02:01:18 GMT",
            "Thu Aug 18 02:01:18 2050 GMT",
            "2050-08-18T02:01:18Z",
        ] {
            assert_eq!(at(value), None, "{value}");
        }
    }

    #[test]
    fn a_repeated_field_is_no_date() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers, &http::header::DATE, NOW), None);
        headers.append("date", format(NOW));
        assert_eq!(of(&headers, &http::header::DATE, NOW), Some(NOW));
        headers.append("date", format(NOW));
        assert_eq!(of(&headers, &http::header::DATE, NOW), None);
    }

    #[test]
    fn formatting_is_bounded() {
        assert_eq!(format(Timestamp::EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(Timestamp::NEVER), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(format(Timestamp::from_millis(784_111_777_999)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    proptest! {
        #[test]
        fn what_is_formatted_reads_the_same(secs in 0..=LAST_SECOND) {
            let time = Timestamp::from_secs(secs);
            let text = format(time);
            prop_assert_eq!(parse(text.as_bytes()), Some(time));
            let text = text.to_str().unwrap();
            let asctime = format!("{} {} {} {} {}", &text[..3], &text[8..11], &text[5..7], &text[17..25], &text[12..16]);
            prop_assert_eq!(parse(asctime.as_bytes()), Some(time));
        }

        #[test]
        fn never_panics(value: Vec<u8>, now: u64) {
            parse(&value);
            parse_at(&value, Timestamp::from_millis(now));
        }

        #[test]
        fn never_panics_on_nearly_dates(value in "[A-Za-z]{3,9},? [0-9 A-Za-z:-]{16,24}( GMT)?", now: u64) {
            parse_at(value.as_bytes(), Timestamp::from_millis(now));
        }
    }
}
