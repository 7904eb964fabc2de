//! What calls of language models are made of, as far as a cache has to know: bodies, streams and their ends. Pure: no I/O,
//! no clock, and nothing that is sent can make it panic.

pub mod answer;
pub mod canonical;
pub mod endpoint;
pub mod events;
pub mod fields;
pub mod json;
pub mod number;
pub mod path;
pub mod provider;
