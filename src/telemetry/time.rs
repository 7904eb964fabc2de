//! Points in time as log lines show them: RFC 3339, UTC, milliseconds.

use std::time::SystemTime;

/// Length of what [`rfc3339`] returns.
pub const LENGTH: usize = "2026-01-02T03:04:05.678Z".len();

/// `time` as `2026-01-02T03:04:05.678Z`. Before 1970 it is 1970, after 9999 it is the end of 9999.
pub fn rfc3339(time: SystemTime) -> [u8; LENGTH] {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (secs, millis) = match since.as_secs() {
        secs if secs <= MAX => (secs, since.subsec_millis()),
        _ => (MAX, 999),
    };
    let (year, month, day) = civil(secs / 86_400);
    let second = (secs % 86_400) as u32;
    let mut out = *b"0000-00-00T00:00:00.000Z";
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], second / 3600);
    digits(&mut out[14..16], second / 60 % 60);
    digits(&mut out[17..19], second % 60);
    digits(&mut out[20..23], millis);
    out
}

/// 9999-12-31T23:59:59Z.
const MAX: u64 = 253_402_300_799;

/// Year, month and day of the `days`th day after 1970-01-01, in eras of 400 years that begin on 1 March: so the leap
/// day is the last of its year.
fn civil(days: u64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

fn digits(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn text(millis: u64) -> String {
        String::from_utf8_lossy(&rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))).into_owned()
    }

    #[test]
    fn known_days() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(text(4_107_542_400_001), "2100-03-01T00:00:00.001Z");
        assert_eq!(text(253_402_300_799_000), "9999-12-31T23:59:59.000Z");
        assert_eq!(text(253_402_300_800_000), "9999-12-31T23:59:59.999Z");
    }

    proptest! {
        /// Against a crate that knows the calendar too.
        #[test]
        fn as_others_see_it(millis in 0u64..253_402_300_800_000) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let http = httpdate::fmt_http_date(time);
            let ours = text(millis);
            prop_assert_eq!(&ours[0..4], &http[12..16]);
            prop_assert_eq!(&ours[8..10], &http[5..7]);
            prop_assert_eq!(&ours[11..19], &http[17..25]);
            let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
            let number: usize = ours[5..7].parse().expect("two digits");
            prop_assert_eq!(month[number - 1], &http[8..11]);
        }
    }
}
