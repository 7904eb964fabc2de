//! Who is let in while no token is configured: processes of this machine, and no page that a browser shows.
//!
//! Calls of a page that is not ours say where they come from (`Origin`, `Sec-Fetch-Site`), or, after DNS rebinding,
//! name a host in `Host` that is not this machine.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts, uri::Authority};

use super::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets in what no page of another site can have made a browser send.
///
/// # Errors
/// The answer to what one may have.
pub(super) fn not_from_a_foreign_page(head: &Parts) -> Result<(), Problem> {
    let from_a_page = head.headers.contains_key(header::ORIGIN) || head.headers.contains_key(SEC_FETCH_SITE);
    match head.method.as_str() {
        // `Host` names what to purge here. No page of ours sends PURGE, and a browser cannot send it without `Origin`.
        "PURGE" if from_a_page => Err(forbidden("PURGE is not taken from a browser while no token is configured")),
        "PURGE" => Ok(()),
        _ => host_is_ours(head).and_then(|host| same_site(&head.headers, &head.method, host.as_ref())),
    }
}

/// The host a call names, if it names one: this machine by address or as `localhost`.
fn host_is_ours(head: &Parts) -> Result<Option<Authority>, Problem> {
    let unknown = |host: &str| {
        Err(forbidden(format!(
            "unknown host {host:?}: while no token is configured, call by address or as `localhost`, or configure \
             `admin.token`"
        )))
    };
    let authority = match (head.headers.get(header::HOST), head.uri.authority()) {
        (None, None) => return Ok(None),
        (Some(host), _) => Authority::try_from(host.as_bytes()).map_err(|_| host),
        (None, Some(authority)) => Ok(authority.clone()),
    };
    match authority {
        Ok(authority) if is_this_machine(authority.host()) => Ok(Some(authority)),
        Ok(authority) => unknown(authority.as_str()),
        Err(host) => unknown(&String::from_utf8_lossy(host.as_bytes())),
    }
}

/// By address: to rebind a name, a page has to have one.
fn is_this_machine(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
}

fn same_site(headers: &HeaderMap, method: &Method, host: Option<&Authority>) -> Result<(), Problem> {
    let fetched_from = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    let foreign_fetch = fetched_from.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| !is_origin_of(origin, host));
    if foreign_fetch || foreign_origin {
        return Err(forbidden(format!(
            "{method} from a page of another site: configure `admin.token` and send it, to call from there"
        )));
    }
    Ok(())
}

fn is_origin_of(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let authority = origin.as_bytes().strip_prefix(b"http://").or_else(|| origin.as_bytes().strip_prefix(b"https://"));
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_str().as_bytes()),
        _ => false,
    }
}

fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = http::Request::builder().method(method).uri("/purge");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        not_from_a_foreign_page(&head).map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn without_a_token_foreign_pages_are_kept_out() {
        let answer = status;
        for host in ["127.0.0.1:8081", "localhost:8081", "[::1]:8081", "LOCALHOST", "a.localhost", "10.0.0.1"] {
            assert_eq!(answer("POST", &[("host", host)]), 200, "{host}");
        }
        assert_eq!(answer("POST", &[]), 200, "no browser leaves it out");
        for host in ["evil.example", "evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example", "a b"] {
            assert_eq!(answer("GET", &[("host", host)]), 403, "{host}");
        }
        let from = |origin| answer("POST", &[("host", "localhost:8081"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8081"), 200);
        for origin in ["http://evil.example", "null", "http://localhost:3000", ""] {
            assert_eq!(from(origin), 403, "{origin}");
        }
        let fetched = |site| answer("GET", &[("host", "localhost"), ("sec-fetch-site", site)]);
        assert_eq!([fetched("same-origin"), fetched("none")], [200, 200]);
        assert_eq!([fetched("cross-site"), fetched("same-site"), fetched("")], [403, 403, 403]);
    }

    #[test]
    fn a_purge_method_names_its_target_in_host() {
        let answer = |fields: &[(&str, &str)]| status("PURGE", fields);
        assert_eq!(answer(&[("host", "shop.example")]), 200);
        assert_eq!(answer(&[("host", "shop.example"), ("origin", "http://shop.example")]), 403);
        assert_eq!(answer(&[("host", "shop.example"), ("sec-fetch-site", "same-origin")]), 403);
    }
}
