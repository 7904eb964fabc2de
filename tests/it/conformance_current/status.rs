//! Status codes, heuristics and must-understand (RFC 9111 sections 3, 4.2.2 and 5.2.2.3).

use super::at;
use crate::support::{gateway, raw};

/// A raw origin that answers with this status, these lines and a body of five bytes, if the status has one.
async fn with_status(status: u16, lines: &str) -> raw::Origin {
    let body = if status == 204 { "\r\n" } else { "content-length: 5\r\n\r\nhello" };
    raw::answer(format!("HTTP/1.1 {status} Whatever\r\ndate: {}\r\n{lines}{body}", at(0))).await
}

async fn status_reused(status: u16, lines: &str) -> bool {
    let origin = with_status(status, lines).await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    for _ in 0..2 {
        let response = gateway.get("/a").await;
        assert_eq!(response.status, status);
        if response.cache().hit {
            return true;
        }
    }
    false
}

const STATUSES: [u16; 18] = [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599];

#[tokio::test]
async fn any_status_with_a_lifetime_is_reused_while_fresh() {
    for status in STATUSES {
        assert!(status_reused(status, "cache-control: max-age=3600\r\n").await, "{status}");
        assert!(!status_reused(status, "cache-control: max-age=3600\r\nage: 7200\r\n").await, "{status} is stale");
    }
}

#[tokio::test]
async fn must_understand() {
    let lines = "cache-control: max-age=3600, no-store, must-understand\r\n";
    assert!(status_reused(200, lines).await, "an understood status may be stored all the same");
    assert!(!status_reused(599, lines).await);
    assert!(!status_reused(299, "cache-control: max-age=3600, must-understand\r\n").await);
    assert!(!status_reused(200, "cache-control: max-age=3600, no-store\r\n").await);
}

#[tokio::test]
async fn heuristics_by_status() {
    let modified = format!("last-modified: {}\r\n", at(-24 * 3600));
    for status in [200, 203, 204, 404, 405, 410, 414, 501] {
        assert!(status_reused(status, &modified).await, "{status}");
    }
    for status in [201, 202, 403, 502, 503, 504, 599] {
        assert!(!status_reused(status, &modified).await, "{status}");
    }
    assert!(status_reused(599, &format!("{modified}cache-control: public\r\n")).await);
    assert!(!status_reused(200, "").await, "neither lifetime nor validator");
}
