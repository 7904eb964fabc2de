//! How much room the disk tier has: its bounds, and what its file system says when it is asked.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Registry,
};

use super::tier::Tier;

/// Reads it where it is scraped. Holds no tier open.
pub(super) struct Room {
    tier: Weak<Tier>,
}

impl Room {
    pub(super) fn register(registry: &mut Registry, tier: &Arc<Tier>) {
        registry.sub_registry_with_prefix("l3").register_collector(Box::new(Self { tier: Arc::downgrade(tier) }));
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Collector for Room {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(tier) = self.tier.upgrade() else { return Ok(()) };
        let config = &tier.config;
        for (name, help, value) in [
            ("bytes_max", "What L3 may take of the disk", Some(config.max_bytes.as_u64())),
            ("entries_max", "Slots L3 may have", Some(config.entries_max)),
            ("free_bytes_min", "What L3 leaves free of its file system", Some(config.free_bytes_min.as_u64())),
            ("free_bytes", "What is free of the file system of L3", tier.home.free_bytes().ok()),
            ("file_system_bytes", "Size of the file system of L3", tier.home.file_system_bytes().ok()),
        ] {
            // A disk that does not tell has said so elsewhere: `larder_l3_on`.
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
