//! What the process takes of its machine, and which release it is: read when it is scraped, so it costs nothing else.
//!
//! The names are those that all of Prometheus' clients use, without the prefix of our own families. What a system does
//! not tell is left out.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// Registers `process_*`, and `larder_build_info` with the release.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process { started: SystemTime::now() }));
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("larder_build", "The release that runs", build);
}

#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let cpu = ConstCounter::new(cpu().as_secs_f64());
        let help = "Time of all cores that the process has used";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        let started = ConstGauge::new(self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let help = "When it was started, as seconds since 1970";
        let unit = Some(&Unit::Seconds);
        started.encode(encoder.encode_descriptor("process_start_time", help, unit, started.metric_type())?)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name| field(&status, name).map(|kib| kib.saturating_mul(1024));
        for (name, help, unit, value) in [
            ("process_resident_memory", "Memory in use", Some(Unit::Bytes), kib("VmRSS:")),
            ("process_virtual_memory", "Memory addressed", Some(Unit::Bytes), kib("VmSize:")),
            ("process_threads", "Threads", None, field(&status, "Threads:")),
            ("process_open_fds", "File descriptors in use", None, open_fds()),
            ("process_max_fds", "File descriptors it may use", None, getrlimit(Resource::Nofile).current),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Without the one that looks.
fn open_fds() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_status_are_found_by_their_names() {
        let status = "Name:\tlarder\nVmSize:\t  8400 kB\nVmRSS:\t    1000 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(1000));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
        assert_eq!(field("VmRSS:\tmuch", "VmRSS:"), None);
    }

    #[test]
    fn they_bear_the_names_that_everybody_knows() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("written");
        for name in ["process_cpu_seconds_total ", "process_start_time_seconds ", "process_max_fds "] {
            assert!(text.contains(&format!("\n{name}")), "{name} in {text}");
        }
        assert!(text.contains("larder_build_info{version="), "{text}");
        if cfg!(target_os = "linux") {
            assert!(
                text.contains("\nprocess_resident_memory_bytes ") && text.contains("\nprocess_open_fds "),
                "{text}"
            );
        }
    }
}
