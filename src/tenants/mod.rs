//! Who a request is of: tenants, told apart by keys of the gateway's own and by tokens of issuers.
//!
//! A key is not the provider's: whoever has one never sees what the origin asks for. Keys are kept as hashes, and what is
//! presented is hashed before it is compared with anything.

pub mod config;
mod denied;
mod gate;
mod key;
mod presented;
mod table;

pub use self::{
    config::{Access, Clients, Config},
    denied::Denied,
    gate::Gate,
    key::{Digest, KEY_BYTES_MIN, NotADigest, new_key},
    presented::{LARDER_KEY, Lines, Presented},
    table::{Names, Tenant, Tenants},
};
