//! The rules of HTTP caching, pure: no I/O, no clock (time is an argument), no panic on what the network sent.

pub mod entry;
pub mod freshness;
pub mod head;
pub mod key;
pub mod range;
pub mod scope;
pub mod time;
pub mod validators;
