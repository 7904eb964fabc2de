//! Variants and how selecting fields are compared (RFC 9111 section 4.1).

use super::{reused, stored};
use crate::support::{client, origin::reply};

/// Whether a response stored for the first field lines answers a request with the second ones.
async fn selects(vary: &str, content_language: Option<&str>, first: &[(&str, &str)], second: &[(&str, &str)]) -> bool {
    let mut response = reply("hello").max_age(5000).header("vary", vary);
    if let Some(language) = content_language {
        response = response.header("content-language", language);
    }
    let (_origin, gateway) = stored(response.clone(), response).await;
    let request = |lines: &[(&str, &str)]| {
        lines.iter().fold(client::get(gateway.url("/a")), |request, (name, value)| request.header(name, value)).send()
    };
    request(first).await;
    request(second).await.cache().hit
}

#[tokio::test]
async fn selecting_fields_are_normalised() {
    assert!(selects("Foo", None, &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]).await, "combined lines");
    assert!(selects("Foo", None, &[("foo", "1,2")], &[("foo", "1, 2")]).await, "blanks");
    for second in ["de, en", "eN, De", "en ,   de"] {
        let lines = [("accept-language", second)];
        let hit = selects("Accept-Language", None, &[("accept-language", "en, de")], &lines).await;
        assert!(hit, "{second}");
    }
    assert!(
        selects(
            "Accept-Language",
            Some("de"),
            &[("accept-language", "en, de")],
            &[("accept-language", "fr;q=0.5, de;q=1.0")]
        )
        .await,
        "the stored language is the best the client asks for"
    );
}

#[tokio::test]
async fn normalising_does_not_confuse() {
    assert!(!selects("Foo", None, &[("foo", "1, 2")], &[("foo", "2, 1")]).await, "order may mean something");
    assert!(!selects("Foo", None, &[("foo", "a b")], &[("foo", "ab")]).await);
    assert!(!selects("Foo", None, &[("foo", "a")], &[("foo", "A")]).await);
    assert!(!selects("Foo", None, &[("foo", "")], &[]).await, "empty is not absent");
    let english = [("accept-language", "en")];
    assert!(!selects("Accept-Language", Some("en"), &english, &[("accept-language", "de")]).await);
    assert!(!selects("Accept-Language", Some("en"), &english, &[("accept-language", "en;q=0, de")]).await);
}

#[tokio::test]
async fn several_selecting_fields() {
    let first = [("foo", "1"), ("bar", "abc"), ("baz", "789")];
    assert!(selects("Foo, Bar, Baz", None, &first, &[("baz", "789"), ("foo", "1"), ("bar", "abc")]).await);
    assert!(!selects("Foo, Bar, Baz", None, &first, &[("foo", "2"), ("bar", "abc"), ("baz", "789")]).await);
    assert!(!selects("Foo, Bar, Baz", None, &first, &[("foo", "1"), ("baz", "789")]).await);
    assert!(selects("Foo, Bar, Baz", None, &[("foo", "1"), ("baz", "7")], &[("foo", "1"), ("baz", "7")]).await);
    assert!(selects("Foo", None, &[("foo", "1"), ("other", "2")], &[("foo", "1"), ("other", "3")]).await);
}

#[tokio::test]
async fn a_star_anywhere_matches_nothing() {
    for vary in ["*", "*, *", "*, Foo", "Foo, *", ", *"] {
        assert!(!selects(vary, None, &[("foo", "1")], &[("foo", "1")]).await, "{vary}");
    }
    let two_lines = reply("hello").max_age(60).header("vary", "").header("vary", "*");
    assert!(!reused(two_lines).await);
}
