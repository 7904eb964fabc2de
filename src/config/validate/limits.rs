//! Checks of `[limits]` and `[[limit]]`.

use std::{collections::BTreeSet, time::Duration};

use super::{
    finding::{Finding, Table},
    route::is_route_name,
};
use crate::{
    config::{Config, key_path::KeyPath, schema},
    limit::{
        LIMITS_MAX, LimitConfig,
        config::{Count, Over, Per},
    },
};

/// Name of the forward proxy among routes.
const FORWARD: &str = "forward";
/// Longest time in which a burst is made up for: what is counted in memory is lost with the process.
const WINDOW_MAX: Duration = Duration::from_hours(24 * 31);

/// What can be said of limits without a look at routes.
pub(super) fn limits(config: &Config) -> Vec<Finding> {
    let mut table = Table::new("limits");
    table.within("callers_max", config.limits.callers_max, 1..=10_000_000);
    if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&config.limits.redis_timeout) {
        table.add("redis_timeout", "must be 1ms to 10s");
    }
    let mut found = table.findings;
    if config.limit.len() > LIMITS_MAX {
        found.push(Finding::new(KeyPath::root().key("limit"), format!("there can be {LIMITS_MAX} limits")));
    }
    let mut names = BTreeSet::new();
    for (index, limit) in config.limit.iter().enumerate() {
        let mut add = |key: &str, message: String| found.push(Finding::new(at(index).key(key), message));
        if !is_route_name(&limit.name) {
            add("name", "a name is 1 to 64 letters, digits, `.`, `_`, `-`".to_owned());
        } else if !names.insert(&limit.name) {
            add("name", "another limit has this name".to_owned());
        }
        if limit.burst > 1_000_000_000 {
            add("burst", format!("{} is not within 0 to 1000000000", limit.burst));
        }
        let rate = limit.rate();
        if u128::from(rate.window()) > WINDOW_MAX.as_nanos() {
            add("burst", "takes longer than 31 days to be made up for at that rate".to_owned());
        }
        if !(1..=rate.burst()).contains(&limit.batch) {
            add("batch", format!("{} is not within 1 and the burst, {}", limit.batch, rate.burst()));
        }
        if limit.over == Over::Redis && limit.count == Count::Tokens {
            add("over", "tokens are counted by each node for itself (\"memory\")".to_owned());
        }
        if limit.over == Over::Redis && rate.interval() < 1000 {
            // As fine as Redis tells time.
            add("rate", "Redis counts no more than 1000000/s".to_owned());
        }
        if limit.over == Over::Redis && !config.l2.is_on() {
            add("over", "\"redis\" needs Redis (l2.url)".to_owned());
        }
    }
    found
}

/// Routes that limits name and that do not exist.
pub(in crate::config) fn limited_routes(limits: &[LimitConfig], known: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let unknown = |name: &&String| **name != FORWARD && !known.contains(&&name[..]);
        for (nth, name) in limit.routes.iter().enumerate().filter(|(_, name)| unknown(name)) {
            let meant = schema::nearest(name, known.iter().copied());
            let meant = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
            found.push(Finding::new(at(index).key("routes").index(nth), format!("there is no route {name:?}{meant}")));
        }
    }
    found
}

/// Limits by tenant where there can be none.
pub(super) fn lint(config: &Config) -> Vec<Finding> {
    let nobody = config.tenant.is_empty() && config.issuer.is_empty();
    let by_tenant = config.limit.iter().enumerate().filter(|(_, limit)| nobody && limit.per == Per::Tenant);
    let message = "all requests count together: there is no [[tenant]], and no [[issuer]] that names one";
    by_tenant.map(|(index, _)| Finding::new(at(index).key("per"), message)).collect()
}

fn at(index: usize) -> KeyPath {
    KeyPath::root().key("limit").index(index)
}
