//! Settings of traces.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// `[trace]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Base URL of the collector (OTLP over HTTP); empty: nothing is traced.
    pub endpoint: String,
    /// Share of traces begun here that are recorded: 0.0 to 1.0. Others are recorded where their parent is.
    pub sample: f64,
    /// Fields of each call of the collector.
    pub headers: BTreeMap<String, String>,
    /// Spans waiting to be exported; beyond that they are dropped and counted.
    pub queue_max: usize,
    /// How long one call of the collector may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// What the collector knows this service by.
    pub service_name: String,
}
