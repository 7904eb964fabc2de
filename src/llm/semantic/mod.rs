//! What has to be known to answer a call with the stored answer to one that only says the same in other words: which text
//! of a call may differ at all, what in it must not, and what an answer says.
//!
//! Everything of a call but the text of its last message is its *frame*, and so are the facts of that text: numbers, names,
//! negations, code. Calls are compared within one frame, so nothing that is compared can tell two frames from each other.

pub mod config;
pub mod facts;
pub mod said;
pub mod sought;

pub use self::{
    config::{Config, Mode, Secret},
    sought::{Sought, Unsought},
};
