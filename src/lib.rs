//! Larder: an HTTP caching gateway, as a library with a thin binary on top.
//!
//! The modules are layers. Each uses only what stands below it:
//!
//! ```text
//!  6  cli                                   commands: serve, check, purge, warm, export, import, explain, stats, nodes, reload, log-level, disk, ca, key, health, man, demo
//!  5  app ─────────── config                the only two that know all parts
//!  4  admin      listener                   the two front doors
//!  3  changes    webhook    otlp    warm    proxy    what surrounds every request; what backends say; what CDNs and collectors are told
//!  2             cache                      the decisions: hit, stale, miss, pass; flight; fill
//!  1     store     purge     origin     intercept   limit   tenants   strangers to each other
//!  0  object   llm   files   tls   kv   jwt   pack   archive   telemetry    pure rules of HTTP caching and of model calls; directories; TLS, which kv uses; Redis; tokens; recorded calls; files of stored responses; logs
//! ```
//!
//! `docs/ARCHITECTURE.md` says what must always hold.

pub mod admin;
pub mod app;
pub mod archive;
pub mod cache;
pub mod changes;
pub mod cli;
pub mod config;
pub mod files;
pub mod intercept;
pub mod jwt;
pub mod kv;
pub mod limit;
pub mod listener;
pub mod llm;
pub mod object;
pub mod origin;
pub mod otlp;
pub mod pack;
pub mod proxy;
pub mod purge;
pub mod store;
pub mod telemetry;
pub mod tenants;
pub mod tls;
pub mod warm;
pub mod webhook;
