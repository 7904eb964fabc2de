//! The gateway as a black box: a process, programmable origins before it, clients behind it. One module a topic.

mod admin;
mod adversary;
mod coalesce;
mod config;
mod conformance_current;
mod disk;
mod disk_chaos;
mod disk_operate;
mod express;
mod following;
mod forward;
mod headers;
mod hits;
mod intercept;
mod intercept_clients;
mod invalidation;
mod keys;
mod llm;
mod methods;
mod purge;
mod ranges;
mod sharing;
mod stale;
mod support;
mod upgrade;
mod warm;
