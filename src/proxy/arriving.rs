//! Which fields of a request count, settled before a key is made of them: the cache sees what the origin may see.
//!
//! A field that `Connection` names ends at this hop, and what clients outside `headers.trusted` tell of themselves is
//! replaced. If a key, a variant or a partition were made of either, whoever sends it could have an answer made without
//! it stored in the place of one made with it.

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::Proxy;
use crate::object::{
    fields,
    forwarded::{FOR, HOST, PORT, PROTO},
    plain::Plain,
};

/// Fields that need a closer look, found in one pass: most requests carry next to none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// `Connection`.
    pub(super) connection: bool,
    /// `Upgrade`.
    pub(super) upgrade: bool,
    /// `CDN-Loop`.
    pub(super) cdn_loop: bool,
    /// `X-Forwarded-For`, which tells of the client alone.
    forwarded_for: bool,
    /// The other forwarding fields, which tell of the URL as well.
    forwarded_url: bool,
}

impl Noted {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut noted = Self::default();
        headers.keys().for_each(|name| noted.note(name.as_str().as_bytes()));
        noted
    }

    pub(super) fn of_plain(request: &Plain<'_>) -> Self {
        let mut noted = Self::default();
        request.noted(|name| noted.note(name));
        noted
    }

    fn note(&mut self, name: &[u8]) {
        match name {
            b"connection" => self.connection = true,
            b"upgrade" => self.upgrade = true,
            b"cdn-loop" => self.cdn_loop = true,
            b"x-forwarded-for" => self.forwarded_for = true,
            b"forwarded" | b"x-forwarded-proto" | b"x-forwarded-host" | b"x-forwarded-port" => {
                self.forwarded_url = true
            }
            _ => {}
        }
    }
}

impl Proxy {
    /// Takes out of a request what does not count. The answer is [`Proxy::believes`].
    pub(super) fn settle(&self, headers: &mut HeaderMap, address: IpAddr) -> bool {
        let noted = Noted::of(headers);
        if noted.connection {
            fields::strip_nominated(headers);
        }
        if self.is_forged(noted, address) {
            for name in [FOR, PROTO, HOST, PORT, header::FORWARDED] {
                headers.remove(name);
            }
        }
        self.believes(noted, address)
    }

    /// Whether [`Proxy::settle`] would take something out.
    pub(super) fn is_settled(&self, headers: &HeaderMap, noted: Noted, address: IpAddr) -> bool {
        let nominates = noted.connection && fields::nominates(headers);
        !nominates && !self.is_forged(noted, address)
    }

    /// Whether what a request says of itself is taken from its client.
    pub(super) fn is_forged(&self, noted: Noted, address: IpAddr) -> bool {
        (noted.forwarded_for || noted.forwarded_url) && !self.trusts(address)
    }

    /// Whether what the request says of its URL beside the URL itself reaches the origin, and so is part of its key.
    pub(super) fn believes(&self, noted: Noted, address: IpAddr) -> bool {
        noted.forwarded_url && self.trusts(address)
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.headers_config().trusted.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted() {
        let noted = |name: &'static str| {
            Noted::of(&HeaderMap::from_iter([(name.parse().expect("a name"), header::HeaderValue::from_static("x"))]))
        };
        assert_eq!(noted("accept"), Noted::default());
        assert!(noted("connection").connection && noted("upgrade").upgrade && noted("cdn-loop").cdn_loop);
        assert!(noted("x-forwarded-for").forwarded_for && !noted("x-forwarded-for").forwarded_url);
        for name in ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded"] {
            assert!(noted(name).forwarded_url, "{name}");
        }
    }
}
