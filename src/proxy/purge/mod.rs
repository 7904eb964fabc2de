//! Purges as callers write them: what a request names becomes scopes, and the scopes go to the purge log.
//!
//! Whatever cannot be understood in full is refused as a whole: half a purge that answers 200 is worse than none.

use std::time::Duration;

use tokio::time::Instant;

use super::Proxy;
use crate::{
    object::scope::Scope,
    purge::{self, PurgeId},
    telemetry::trace::Kind,
};

mod error;
mod plan;
mod receipt;
mod request;

pub use self::{
    error::PurgeError,
    plan::{HOLD_MAX, TAG_BYTES_MAX},
    receipt::{Counted, Mode, Receipt, Refresh},
    request::{Ack, Hold, PurgeRequest},
};

/// Bytes of a caller's own name for a purge.
const ID_BYTES_MAX: usize = 256;

/// A purge that took place.
#[derive(Debug)]
pub struct Purged {
    /// Proof of it.
    pub receipt: Receipt,
    /// The most asked-for URLs it named, if `refresh` was asked for: for the caller to fetch again.
    pub refresh: Vec<String>,
}

/// Counts what a purge would reach, without one. Blocks for the time it takes to look through what is stored.
///
/// # Errors
/// Where the request cannot be understood in full.
pub fn count(proxy: &Proxy, config: &purge::config::Config, request: &PurgeRequest) -> Result<Counted, PurgeError> {
    let plan = plan::plan(request, proxy, config.call_scopes_max)?;
    Ok(Counted { dry_run: true, scopes: plan.named, named: proxy.cache().named(&plan.scopes) })
}

/// The scopes of what `request` names.
///
/// # Errors
/// As [`count`].
pub fn scopes(proxy: &Proxy, config: &purge::config::Config, request: &PurgeRequest) -> Result<Vec<Scope>, PurgeError> {
    plan::plan(request, proxy, config.call_scopes_max).map(|plan| plan.scopes)
}

/// Purges what `request` names, which is to be no dry run. `who` asked for it is noted in the log file.
///
/// # Errors
/// Where the request cannot be understood in full, or the log does not take it. Nothing is purged then.
pub async fn purge(
    proxy: &Proxy,
    config: &purge::config::Config,
    request: &PurgeRequest,
    who: &str,
) -> Result<Purged, PurgeError> {
    let mut span = proxy.tracer().and_then(|tracer| tracer.span(None, "purge", Kind::Internal, Instant::now()));
    let purged = purged(proxy, config, request, who).await;
    if let Some(span) = &mut span {
        match &purged {
            Ok(purged) => {
                span.set("larder.purge.id", purged.receipt.id.clone());
                span.set("larder.purge.scopes", purged.receipt.scopes.to_string());
            }
            Err(_) => span.fail(),
        }
    }
    purged
}

async fn purged(
    proxy: &Proxy,
    config: &purge::config::Config,
    request: &PurgeRequest,
    who: &str,
) -> Result<Purged, PurgeError> {
    if request.dry_run {
        return Err(PurgeError::DryRun);
    }
    let plan = plan::plan(request, proxy, config.call_scopes_max)?;
    // Before the purge: what it makes unusable may leave the cache at once.
    let mut refresh =
        if request.refresh { proxy.cache().popular(&plan.scopes, config.refresh_max) } else { Vec::new() };
    // Whose responses they were, nobody has noted, and the gateway has no key of its own.
    refresh.retain(|url| proxy.resolve(url).is_ok_and(|resolved| !resolved.gated));
    let mode = if request.soft { Mode::Soft } else { Mode::Hard };
    let (receipt, fleet) = proxy
        .cache()
        .purge(
            purge::Purge {
                id: id(request.id.as_deref())?,
                at: proxy.cache().now(),
                mode: mode.into(),
                scopes: plan.scopes,
                hold: plan.hold,
                note: format!("{who}: {}", summary(request)),
            },
            request.ack.into(),
        )
        .await?;
    let receipt = Receipt {
        id: receipt.id.to_string(),
        seq: receipt.seq,
        mode,
        scopes: plan.named,
        ack: request.ack,
        fleet,
        duration_ms: millis(receipt.duration),
        refresh: None,
    };
    proxy.tell(request, &receipt);
    Ok(Purged { receipt, refresh })
}

/// What was named, for people who read the log file: counts, and the first few where they are no secrets. URLs can be.
fn summary(request: &PurgeRequest) -> String {
    const SHOWN: usize = 3;
    if request.all {
        return "everything".to_owned();
    }
    let counted = [("urls", request.urls.len()), ("keys", request.keys.len()), ("prefixes", request.prefixes.len())];
    let listed = [("tags", &request.tags), ("hosts", &request.hosts)];
    let counted = counted.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
    let listed = listed.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
        let shown: Vec<&str> = list.iter().take(SHOWN).map(String::as_str).collect();
        let more = if list.len() > SHOWN { ", ..." } else { "" };
        format!("{} {name} ({}{more})", list.len(), shown.join(", "))
    });
    counted.chain(listed).collect::<Vec<_>>().join(", ")
}

/// What tells a purge from others: the caller's own name for it, or one that nobody else has.
fn id(named: Option<&str>) -> Result<PurgeId, PurgeError> {
    match named {
        None => Ok(PurgeId::random()?),
        Some(name) if (1..=ID_BYTES_MAX).contains(&name.len()) => Ok(PurgeId::named(name)),
        Some(_) => Err(PurgeError::Id),
    }
}

/// Milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_shows_no_url() {
        let json = r#"{"urls":["http://a/?token=secret"],"tags":["a","b","c","d"]}"#;
        let request: PurgeRequest = serde_json::from_str(json).expect("a purge request");
        assert_eq!(summary(&request), "1 urls, 4 tags (a, b, c, ...)");
    }

    #[test]
    fn a_callers_id_is_the_same_each_time() {
        let id = |name| id(name).expect("an id");
        assert_eq!(id(Some("deploy-7")), id(Some("deploy-7")));
        assert_ne!(id(None), id(None));
        assert!(matches!(super::id(Some("")), Err(PurgeError::Id)));
    }
}
