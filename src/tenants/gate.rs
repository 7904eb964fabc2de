//! Whom one route lets in.

use http::{HeaderMap, HeaderName};

use super::{
    config::{Access, Clients},
    presented::{Fields, Lines, Presented},
};

/// Whom a route that asks for tenants lets in.
#[derive(Debug, Clone)]
pub struct Gate {
    fields: Fields,
    issuers: Box<[Box<str>]>,
}

impl Gate {
    /// That of a route; `None`: nobody is asked.
    pub fn of(access: &Access) -> Option<Self> {
        let issuers = access.issuers.iter().map(|name| name.as_str().into()).collect();
        let gate = || Self { fields: Fields::new(access), issuers };
        (access.clients == Clients::Tenants).then(gate)
    }

    /// What a request presents to it.
    pub fn presented<'a>(&self, lines: impl Fn(&HeaderName) -> Lines<'a>) -> Presented<'a> {
        self.fields.presented(lines)
    }

    /// Takes off what was presented, where it is for the gateway alone: where the gateway's own field counts, that one and
    /// what repeats it; where another does, all that are listed. What else a client brings along is for the origin.
    pub fn take_off(&self, headers: &mut HeaderMap) {
        self.fields.take_off(headers);
    }

    /// Whether the origin sees what was presented.
    pub fn forwards_credentials(&self) -> bool {
        self.fields.forward_credentials
    }

    /// Whether tokens of the issuer of that name are taken.
    pub(super) fn takes(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|name| **name == *issuer)
    }

    /// Whether any tokens are taken.
    pub(super) fn takes_tokens(&self) -> bool {
        !self.issuers.is_empty()
    }
}
