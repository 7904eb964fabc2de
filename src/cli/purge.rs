//! `larder purge`.

use super::{
    admin_client::{AdminClient, Error},
    args::{Purge, Scopes},
};
use crate::{
    cache::survey::Named,
    proxy::purge::{Ack, Counted, Hold, Mode, PurgeRequest, Receipt},
    purge::fleet::Spread,
};

/// Purges, and shows the receipt.
pub async fn run(args: Purge) -> Result<(), Error> {
    let client = AdminClient::new(&args.client)?;
    if args.dry_run {
        let counted: Counted = client.post("/purge", &request(args)).await?;
        println!("{}", shown_count(&counted));
        return Ok(());
    }
    let receipt: Receipt = client.post("/purge", &request(args)).await?;
    println!("{}", shown(&receipt));
    Ok(())
}

fn request(args: Purge) -> PurgeRequest {
    let Purge { what, soft, refresh, dry_run, hold, ack, client: _ } = args;
    let Scopes { urls, tags, prefixes, hosts, keys, all } = what;
    let hold = hold.map(Hold);
    PurgeRequest {
        urls,
        keys,
        tags,
        prefixes,
        hosts,
        all,
        soft,
        refresh,
        dry_run,
        hold,
        ack: ack.into(),
        ..PurgeRequest::default()
    }
}

fn shown_count(counted: &Counted) -> String {
    let Named { entries, l1, l3, at_least } = counted.named;
    let at_least = if at_least { "at least " } else { "" };
    let entries = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
    format!("would purge {at_least}{entries}: {l1} in memory, {l3} on the disk; nothing was purged")
}

fn shown(receipt: &Receipt) -> String {
    let Receipt { id, seq, mode, scopes, duration_ms, .. } = receipt;
    let what = match mode {
        Mode::Hard => "purged",
        Mode::Soft => "made stale",
    };
    let scopes = if *scopes == 1 { "1 scope".to_owned() } else { format!("{scopes} scopes") };
    let mut text = format!("{what}: {scopes}, purge {seq}, {duration_ms:.1} ms, id {id}");
    if let Some(Spread { epoch, seq, replicated, queued, nodes, gone }) = receipt.fleet {
        match receipt.ack {
            _ if queued => text.push_str("; the other nodes have it as soon as Redis takes it"),
            Ack::Fleet => text.push_str(&format!("; applied on {nodes} other nodes, {gone} gone")),
            Ack::Local | Ack::Log => text.push_str(&format!("; record {epoch}-{seq} for all nodes")),
        }
        if replicated {
            text.push_str(", on a replica");
        }
    }
    if let Some(refresh) = receipt.refresh {
        text.push_str(&format!("; {} URLs are being fetched again", refresh.queued));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::purge::Refresh;

    #[test]
    fn a_count_in_one_line() {
        let named = Named { entries: 3, l1: 2, l3: 2, at_least: true };
        let text = shown_count(&Counted { dry_run: true, scopes: 1, named });
        assert_eq!(text, "would purge at least 3 entries: 2 in memory, 2 on the disk; nothing was purged");
    }

    #[test]
    fn a_receipt_in_one_line() {
        let receipt = Receipt {
            id: "1f".to_owned(),
            seq: 17,
            mode: Mode::Hard,
            scopes: 2,
            ack: Ack::Log,
            fleet: None,
            duration_ms: 3.06,
            refresh: Some(Refresh { queued: 5 }),
        };
        assert_eq!(shown(&receipt), "purged: 2 scopes, purge 17, 3.1 ms, id 1f; 5 URLs are being fetched again");
    }
}
