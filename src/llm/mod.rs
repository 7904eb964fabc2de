//! What calls of language models are made of, as far as a cache has to know: bodies, streams and their ends; whose a call
//! is, and what it costs. Pure: no I/O, no clock, and nothing that is sent can make it panic.

pub mod answer;
pub mod answered;
pub mod canonical;
pub mod config;
pub mod controls;
pub mod embeddings;
pub mod endpoint;
pub mod events;
pub mod fields;
pub mod form;
pub mod json;
mod media;
pub mod number;
pub mod outline;
pub mod path;
pub mod price;
pub mod provider;
pub mod question;
pub mod scope;
pub mod semantic;
pub mod volatile;
