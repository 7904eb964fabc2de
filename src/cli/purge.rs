//! `larder purge`.

use super::{
    admin_client::{AdminClient, Error},
    args::{Purge, Scopes},
};
use crate::{
    proxy::purge::{Ack, Hold, Mode, PurgeRequest, Receipt},
    purge::fleet::Spread,
};

/// Purges, and shows the receipt.
pub async fn run(args: Purge) -> Result<(), Error> {
    let client = AdminClient::new(&args.client)?;
    let receipt: Receipt = client.post("/purge", &request(args)).await?;
    println!("{}", shown(&receipt));
    Ok(())
}

fn request(args: Purge) -> PurgeRequest {
    let Purge { what, soft, refresh, hold, ack, client: _ } = args;
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
        hold,
        ack: ack.into(),
        ..PurgeRequest::default()
    }
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
