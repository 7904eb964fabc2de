//! Of whom a request is, as limits see it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use super::config::Per;
use crate::object::plain::Plain;

/// Fields of a request, however they lie.
pub trait Fields: Sync {
    /// Gives `take` every value of that name, in their order.
    fn each(&self, name: &HeaderName, take: &mut dyn FnMut(&[u8]));
}

impl Fields for HeaderMap {
    fn each(&self, name: &HeaderName, take: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().for_each(|value| take(value.as_bytes()));
    }
}

impl Fields for Plain<'_> {
    fn each(&self, name: &HeaderName, take: &mut dyn FnMut(&[u8])) {
        self.get_all(name.as_str()).for_each(take);
    }
}

/// Who asks.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The client's address, as far as it is known.
    pub address: IpAddr,
    /// Name of the tenant it is of.
    pub tenant: Option<&'a str>,
    /// Fields of the request.
    pub fields: &'a dyn Fields,
}

/// Subject of all requests that are not told apart, and of those without what they are told apart by.
pub(super) const NOBODY: u128 = 0;

/// What `caller` is counted under. Values of fields, which may be secrets, count as hashes under `secret`.
pub(super) fn of(per: &Per, caller: &Caller<'_>, secret: &[u8; 32]) -> u128 {
    match per {
        Per::Route => NOBODY,
        Per::Address => of_address(caller.address),
        Per::Tenant => caller.tenant.map_or(NOBODY, of_text),
        Per::Field(name) => of_field(name, caller.fields, secret),
    }
}

/// Of IPv6 the network: whoever has one address has as many of its 2^64 as he likes.
pub(super) fn of_address(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & (u128::MAX << 64),
    }
}

fn of_field(name: &HeaderName, fields: &dyn Fields, secret: &[u8; 32]) -> u128 {
    let mut hash: Option<blake3::Hasher> = None;
    fields.each(name, &mut |value| {
        let hash = hash.get_or_insert_with(|| blake3::Hasher::new_keyed(secret));
        hash.update(&(value.len() as u64).to_le_bytes()).update(value);
    });
    hash.map_or(NOBODY, |hash| of_hash(&hash.finalize()))
}

/// Of a name.
pub(super) fn of_text(text: &str) -> u128 {
    of_hash(&blake3::hash(text.as_bytes()))
}

fn of_hash(hash: &blake3::Hash) -> u128 {
    // A hash is longer than that.
    hash.as_bytes().first_chunk().map_or(NOBODY, |bytes| u128::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(per: &str, address: &str, fields: &[(&'static str, &'static str)]) -> u128 {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().expect("a value"));
        }
        let caller = Caller { address: address.parse().expect("an address"), tenant: None, fields: &map };
        of(&per.parse().expect("a subject"), &caller, &[7; 32])
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let of = |address| subject("address", address, &[]);
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(subject("route", "192.0.2.1", &[]), subject("route", "192.0.2.2", &[]));
    }

    #[test]
    fn a_field_counts_with_all_its_lines() {
        let of = |fields: &[_]| subject("field:x-client", "192.0.2.1", fields);
        assert_eq!(of(&[("x-client", "a")]), of(&[("x-client", "a"), ("x-other", "b")]));
        assert_ne!(of(&[("x-client", "a")]), of(&[("x-client", "b")]));
        assert_ne!(of(&[("x-client", "a"), ("x-client", "b")]), of(&[("x-client", "ab")]));
        assert_ne!(of(&[("x-client", "")]), of(&[]));
        assert_eq!(of(&[]), NOBODY);
    }

    #[test]
    fn a_plain_request_is_of_the_same() {
        let mut slots = crate::object::plain::Slots::default();
        let bytes = b"GET / HTTP/1.1\r\nhost: x\r\nX-Client: a\r\nx-client: b\r\n\r\n";
        let (plain, _) = Plain::parse(bytes, &mut slots).expect("plain");
        let caller = Caller { address: [192, 0, 2, 1].into(), tenant: None, fields: &plain };
        let per = "field:x-client".parse().expect("a subject");
        let fields = [("x-client", "a"), ("x-client", "b")];
        assert_eq!(of(&per, &caller, &[7; 32]), subject("field:x-client", "192.0.2.1", &fields));
    }
}
