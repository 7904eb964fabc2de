//! Warm-up: fetching, ahead of clients, what they are going to ask for.
//!
//! A [`Job`] fetches a list of URLs at a bounded rate; [`Jobs`] keeps the running and the finished ones; the
//! [`Refresher`] fetches again what a purge took. All of them go through a [`Fetcher`], which is the stack that serves
//! clients: what they store is what a client's request would have stored.

pub mod config;

mod fetch;
mod id;
mod job;
mod jobs;
mod metrics;
mod pace;
mod refresh;
pub mod sources;

pub use config::Config;
pub use fetch::{Fetched, Fetcher, Wanted, through};
pub use job::{FetchError, Job, Plan, State, Status};
pub use jobs::{Full, Jobs};
pub use metrics::Metrics;
pub use refresh::Refresher;
