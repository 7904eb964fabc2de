//! JSON Web Tokens (RFC 7519) of issuers that are trusted: who brings one, in which roles, and until when.
//!
//! ```text
//!  token ─▶ remembered? ─▶ parts ─▶ issuer ─▶ key ─▶ signature ─▶ audience, times ─▶ name, roles
//!                                               └ not known: the issuer's keys once more
//! ```
//!
//! Tokens are held to RFC 8725: the configuration says which algorithms and audiences count, a key serves one family of
//! algorithms, and what a token says of itself decides nothing before its signature is right. Keys are JWK Sets
//! (RFC 7517) or PEM, from files that are read again when they change, or from URLs that are asked now and then. What
//! may be done with a name and its roles is for others to say.

mod claims;
pub mod config;
mod fault;
mod issuers;
mod keys;
mod metrics;
mod source;
#[cfg(test)]
mod testing;
mod token;

pub use self::{
    claims::Claims,
    config::{Algorithm, Config, Limits, Role},
    fault::Fault,
    issuers::{Error, Issuers, Read},
    source::Fetch,
    token::looks_like,
};
