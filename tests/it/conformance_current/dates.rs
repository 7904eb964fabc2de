//! Ages, lifetimes and dates (RFC 9111 section 4.2).

use std::time::Duration;

use super::{at, reused, stored};
use crate::support::{origin::reply, outlive};

#[tokio::test]
async fn the_age_field_is_read_as_a_list_of_numbers() {
    for (age, fresh) in [
        ("7200", false),
        ("7200, 0", false),
        ("0, 7200", true),
        ("-7200", true),
        ("7200.0", true),
        ("abc", true),
        ("\"7200\"", true),
        ("2147483648", false),
        ("99999999999", false),
        ("0", true),
    ] {
        assert_eq!(reused(reply("x").max_age(3600).header("age", age)).await, fresh, "{age}");
    }
}

#[tokio::test]
async fn lifetimes_saturate() {
    for seconds in ["2147483647", "2147483648", "4294967296", "9223372036854775808", "99999999999999999999999"] {
        assert!(reused(reply("x").cache_control(&format!("max-age={seconds}"))).await, "{seconds}");
    }
    for nonsense in ["max-age=-1", "max-age=", "max-age='60'", "max-age=a60", "foo=\"max-age=60\"", "max-age=60a"] {
        assert!(!reused(reply("x").cache_control(nonsense)).await, "{nonsense}");
    }
}

#[tokio::test]
async fn expires_is_compared_with_the_date_and_not_the_clock() {
    for (date, expires, fresh) in [(0, 60, true), (0, -60, false), (0, 0, false), (7200, 3600, false)] {
        let response = reply("x").header("date", &at(date)).header("expires", &at(expires));
        assert_eq!(reused(response).await, fresh, "{expires} s, dated {date} s");
    }
    for invalid in ["0", "-1", "soon", "Thu, 18-Aug-2050 02:01:18 UTC", "Thu, 18 Aug 50 02:01:18 GMT"] {
        assert!(!reused(reply("x").header("expires", invalid)).await, "{invalid}");
    }
    for valid in ["Thu, 18 Aug 2050 02:01:18 GMT", "Thursday, 18-Aug-50 02:01:18 GMT", "Thu Aug 18 02:01:18 2050"] {
        assert!(reused(reply("x").header("expires", valid)).await, "{valid}");
    }
}

#[tokio::test]
async fn ages_add_up_without_rounding_away() {
    let (_origin, gateway) = stored(reply("x").max_age(5).header("age", "1"), reply("new")).await;
    let first = gateway.get("/a").await;
    gateway.get("/a").await.assert_hit();
    // Four of five seconds are left on arrival; what is rounded may make it older, never younger.
    outlive(first.end_at, Duration::from_secs(4)).await;
    gateway.get("/a").await.assert_ok("new");
}
