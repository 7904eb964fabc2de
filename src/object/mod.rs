//! The rules of HTTP caching, pure: no I/O, no clock (time is an argument), no panic on what the network sent.

pub mod age;
pub mod allocation;
pub mod codec;
pub mod conditional;
mod content_range;
pub mod date;
pub mod directives;
pub mod entry;
pub mod fields;
pub mod forwarded;
pub mod freshness;
pub mod head;
pub mod key;
mod members;
pub mod merge;
mod multipart;
pub mod names;
mod normalise;
mod parts;
pub mod path;
pub mod plain;
pub mod range;
pub mod reuse;
pub mod scope;
pub mod status;
pub mod tags;
pub mod targeted;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod validators;
mod variants;
pub mod variants_codec;
pub mod vary;
pub mod verdict;
mod wire;
