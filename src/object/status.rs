//! What status codes mean to a cache (RFC 9110 section 15, RFC 9111 section 3).

use http::StatusCode;

/// Whether a response may be stored without explicit freshness (RFC 9110 section 15.1).
pub fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether its caching requirements are known here, which `must-understand` asks for.
pub fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=303 | 307 | 308 | 400..=406 | 409..=411 | 413..=415 | 422 | 424 | 451 | 500..=505
    )
}

/// Whether no directive makes it storable, only an operator's rule for this very status.
///
/// Interim responses and 304 have no content of their own. 428, 429, 431 and 511 must not be stored (RFC 6585). The
/// others answer something of one request or connection that is no part of any key: its range, conditions,
/// expectations, protocol, timing.
pub fn tied_to_request(status: StatusCode) -> bool {
    matches!(status.as_u16(), ..200 | 304 | 407 | 408 | 412 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431 | 511)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(holds: fn(StatusCode) -> bool) -> Vec<u16> {
        (100..1000).filter(|&code| holds(StatusCode::from_u16(code).unwrap())).collect()
    }

    #[test]
    fn heuristics_are_for_the_list_of_rfc_9110() {
        assert_eq!(statuses(heuristically_cacheable), [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501],);
    }

    #[test]
    fn unknown_statuses_are_not_understood() {
        for code in [199, 299, 304, 306, 399, 418, 499, 599, 999] {
            assert!(!understood(StatusCode::from_u16(code).unwrap()), "{code}");
        }
        assert!(statuses(heuristically_cacheable).iter().all(|&code| understood(StatusCode::from_u16(code).unwrap())));
    }

    #[test]
    fn nothing_is_both_understood_and_tied_to_one_request() {
        let both = statuses(|status| understood(status) && tied_to_request(status));
        assert_eq!(both, [0; 0]);
        for code in [200, 299, 302, 400, 401, 499, 500, 599] {
            assert!(!tied_to_request(StatusCode::from_u16(code).unwrap()), "{code}");
        }
    }
}
