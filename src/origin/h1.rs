//! The connections that speak HTTP/1, whoever drives them, and how long one may be kept (RFC 9112, 9.3).

use std::{thread::ThreadId, time::Duration};

use http::{HeaderMap, HeaderValue, Version, header::CONNECTION};

use super::{direct::Direct, error::Error, tasked::Tasked, upstream::Limits};

/// One connection that speaks HTTP/1.
#[derive(Debug)]
pub(super) enum H1 {
    /// Driven by its request. Boxed: it changes hands with each.
    Direct(Box<Direct>),
    /// Driven by a task.
    Tasked(Tasked),
}

impl H1 {
    /// Whether it may carry another request, as far as is known.
    pub(super) fn is_alive(&mut self) -> bool {
        match self {
            Self::Direct(direct) => direct.is_alive(),
            Self::Tasked(tasked) => !tasked.sender.is_closed(),
        }
    }

    /// Whether it may at once: a task may not yet have seen that the last response is over.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Direct(_) => true,
            Self::Tasked(tasked) => tasked.sender.is_ready(),
        }
    }

    /// Waits until it may; false if it never will.
    pub(super) async fn ready(&mut self) -> bool {
        match self {
            Self::Direct(_) => true,
            Self::Tasked(tasked) => tasked.sender.ready().await.is_ok(),
        }
    }

    /// Whether the origin keeps it open at this moment. That costs a call of the system, and is more than
    /// [`H1::is_alive`] knows.
    pub(super) fn is_alive_now(&mut self) -> bool {
        match self {
            Self::Direct(direct) => direct.is_alive_now(),
            Self::Tasked(tasked) => !tasked.sender.is_closed(),
        }
    }

    /// The thread on which it is driven: a request from there needs no other thread to wake up.
    pub(super) fn home(&self) -> ThreadId {
        match self {
            Self::Direct(direct) => direct.home,
            Self::Tasked(tasked) => tasked.home,
        }
    }

    /// How long it may be kept unused; zero if it must not be used again.
    pub(super) fn keep(&self) -> Duration {
        match self {
            Self::Direct(direct) if direct.is_reusable() => direct.keep,
            Self::Direct(_) => Duration::ZERO,
            Self::Tasked(tasked) => tasked.keep,
        }
    }

    /// Learns from a response head how long it may be kept: `keep_max`, less if the origin says so.
    pub(super) fn learn(&mut self, version: Version, headers: &HeaderMap, keep_max: Duration) {
        let learnt = if persists(version, headers) { keep_alive(headers, keep_max) } else { Duration::ZERO };
        match self {
            Self::Direct(direct) => direct.keep = learnt,
            Self::Tasked(tasked) => tasked.keep = learnt,
        }
    }

    /// It is to be used no more, whatever was learnt.
    pub(super) fn retire(&mut self) {
        match self {
            Self::Direct(direct) => direct.keep = Duration::ZERO,
            Self::Tasked(tasked) => tasked.keep = Duration::ZERO,
        }
    }

    /// The same connection with a task to drive it.
    pub(super) async fn into_tasked(self, limits: &Limits) -> Result<Self, Error> {
        match self {
            Self::Direct(direct) => {
                let (stream, open) = direct.into_stream();
                Tasked::start(stream, limits, open).await.map(Self::Tasked)
            }
            tasked @ Self::Tasked(_) => Ok(tasked),
        }
    }
}

/// Whether the connection may be used again after this response.
fn persists(version: Version, headers: &HeaderMap) -> bool {
    let says = |token| headers.get_all(CONNECTION).iter().any(|value| lists(value, token));
    let kept = if version == Version::HTTP_11 { !says("close") } else { says("keep-alive") && !says("close") };
    // Both framings at once: what follows may have been meant to be taken for a response (RFC 9112, 6.3).
    let ambiguous = headers.contains_key(http::header::TRANSFER_ENCODING)
        && (headers.contains_key(http::header::CONTENT_LENGTH) || version != Version::HTTP_11);
    kept && !ambiguous
}

fn lists(value: &HeaderValue, token: &str) -> bool {
    value.as_bytes().split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// `Keep-Alive: timeout=N` less a second, so that the origin does not close while a request is on its way.
fn keep_alive(headers: &HeaderMap, keep_max: Duration) -> Duration {
    let Some(value) = headers.get("keep-alive") else { return keep_max };
    let parameters = value.to_str().unwrap_or_default().split(',');
    let mut announced = parameters.filter_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let seconds: u64 = seconds.trim().parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then_some(Duration::from_secs(seconds))
    });
    announced.next().map_or(keep_max, |announced| announced.saturating_sub(Duration::from_secs(1)).min(keep_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        for (version, lines, expected) in [
            (Version::HTTP_11, &[][..], true),
            (Version::HTTP_11, &[("connection", "foo, Close")], false),
            (Version::HTTP_10, &[], false),
            (Version::HTTP_10, &[("connection", "Keep-Alive")], true),
            (Version::HTTP_11, &[("transfer-encoding", "chunked")], true),
            (Version::HTTP_11, &[("transfer-encoding", "chunked"), ("content-length", "3")], false),
        ] {
            assert_eq!(persists(version, &headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn an_announced_timeout_shortens_the_stay_by_a_second_more() {
        let max = Duration::from_secs(60);
        for (value, seconds) in
            [("timeout=5, max=100", 4), ("max=3, Timeout = 9", 8), ("timeout=1", 0), ("timeout=900", 60), ("x", 60)]
        {
            assert_eq!(keep_alive(&headers(&[("keep-alive", value)]), max), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(keep_alive(&headers(&[]), max), max);
    }
}
