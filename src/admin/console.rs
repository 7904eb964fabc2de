//! `/console`: the gateway on one page.
//!
//! The page is a file of this crate with its style and script within. It fetches nothing but the admin plane's own calls;
//! its Content-Security-Policy admits this style and this script by their hashes, and nothing else. The page itself says
//! nothing about this node and needs no token: whoever opens it is asked for one, and its calls carry it.

use axum::{Router, response::Redirect, routing::get};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("console.html");
const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");

/// The routes of the page.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let policy = HeaderValue::try_from(policy(PAGE)).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Router::new()
        .route("/console", get(async move || (fields.clone(), PAGE)))
        .route("/console/", get(async || Redirect::permanent("/console")))
}

/// What the page may do: be itself, and call where it came from.
fn policy(page: &str) -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(within(page, "script")),
        hash(within(page, "style"))
    )
}

/// The text of the one element of that name.
fn within<'a>(page: &'a str, element: &str) -> &'a str {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let after = page.split_once(&open).map_or("", |(_, after)| after);
    after.split_once(&close).map_or("", |(text, _)| text)
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_admits_what_is_on_the_page_and_nothing_else() {
        assert_eq!(within("<a><b>x</b></a>", "b"), "x");
        assert_eq!(hash(""), "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='");
        for element in ["script", "style"] {
            assert!(!within(PAGE, element).is_empty(), "{element}");
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}: there is one");
        }
        assert!(!policy(PAGE).contains("unsafe"));
    }

    #[test]
    fn the_page_fetches_nothing_from_elsewhere() {
        for outside in ["src=", "@import", "url(", " style=", " onclick=", " onsubmit="] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        let ours = |rest: &&str| rest.starts_with("shop.example") || rest.starts_with("www.w3.org");
        let hosts = PAGE.split("://").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
        assert_eq!(hosts.filter(|rest| !ours(rest)).count(), 0);
    }
}
