//! `larder disk`: the disk tier, of a running gateway over its admin plane, or of a directory that no gateway has.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    admin_client::{self, AdminClient},
    args::{Disk, DiskAction, DiskPlace},
    stats::table,
};
use crate::{
    admin::{DiskCall, DiskState, DiskStats, DiskTask},
    app::disk as directory,
    config::{self, Config, EXIT_CODE},
    store::{
        L3,
        l3::{Collected, Verified},
    },
    tls,
};

/// What `verify` ends with where it found damage (`EX_DATAERR` of sysexits.h).
const DAMAGED: u8 = 65;

const POLL: Duration = Duration::from_millis(200);

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The gateway said no, or was not reached.
    #[error(transparent)]
    Admin(#[from] admin_client::Error),
    /// A gateway has the directory, and is not reached.
    #[error("{taken}; ask that one: {unreached}")]
    Taken {
        /// Who has it.
        taken: directory::DiskError,
        /// Why it cannot be asked.
        unreached: admin_client::Error,
    },
    /// A gateway is reached that has another directory.
    #[error("{taken}; the gateway that answers has another: {other:?} (--admin says which gateway to ask)")]
    Other {
        /// Who has the one that was meant.
        taken: directory::DiskError,
        /// What that gateway has.
        other: String,
    },
    /// The directory is of no use.
    #[error(transparent)]
    Directory(#[from] directory::DiskError),
    /// It was begun.
    #[error("{0}")]
    Failed(String),
    /// The operator thought better of it.
    #[error("nothing was removed")]
    Declined,
}

/// Where the tier is.
enum Tier {
    Gateway(AdminClient),
    Directory(L3),
}

/// Does what was asked for. Returns the exit code.
pub async fn run(args: Disk) -> Result<u8, Error> {
    let (action, place, yes) = match args.action {
        DiskAction::Stats(place) => (None, place, true),
        DiskAction::Verify(place) => (Some(DiskCall::Verify), place, true),
        DiskAction::Gc(place) => (Some(DiskCall::Gc), place, true),
        DiskAction::Clear { yes, place } => (Some(DiskCall::Clear), place, yes),
    };
    let config = match configured(&place) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(EXIT_CODE);
        }
    };
    if !yes {
        confirm(&place, config.as_ref())?;
    }
    if action == Some(DiskCall::Clear)
        && let Some(done) = cleared_here(&place, config.as_ref())
    {
        return done;
    }
    let tier = tier(&place, config.as_ref()).await?;
    match action {
        None => stats(&tier, place.json).await,
        Some(DiskCall::Verify) => verify(&tier, place.json).await,
        Some(DiskCall::Gc) => gc(&tier, place.json).await,
        Some(DiskCall::Clear) => clear(&tier, place.json).await,
    }
}

/// The configuration that names the directory; `None` where a gateway is named and no directory.
fn configured(place: &DiskPlace) -> Result<Option<Config>, config::Errors> {
    let is_named = place.data_dir.is_some() || place.admin().is_none();
    is_named.then(|| config::load(&place.sources())).transpose()
}

/// The directory, if no gateway has it; else that gateway. Where no directory was named, the gateway that was.
async fn tier(place: &DiskPlace, config: Option<&Config>) -> Result<Tier, Error> {
    let Some(config) = config else { return Ok(Tier::Gateway(client(place, None)?)) };
    match directory::open(config) {
        Ok(l3) => Ok(Tier::Directory(l3)),
        Err(taken) if taken.is_taken() => owner(place, config, taken).await.map(Tier::Gateway),
        Err(error) => Err(error.into()),
    }
}

/// The gateway that has the directory.
async fn owner(place: &DiskPlace, config: &Config, taken: directory::DiskError) -> Result<AdminClient, Error> {
    let client = client(place, Some(config))?;
    match client.get::<DiskStats>("/disk").await {
        Ok(stats) if is_same(Path::new(&stats.directory), &directory::directory(config)) => Ok(client),
        Ok(stats) => Err(Error::Other { taken, other: stats.directory }),
        Err(unreached) => Err(Error::Taken { taken, unreached }),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Clears a directory that no gateway has, also one that cannot be opened.
fn cleared_here(place: &DiskPlace, config: Option<&Config>) -> Option<Result<u8, Error>> {
    let config = config?;
    let there = match directory::clear(config) {
        Err(error) if error.is_taken() => return None,
        Err(error) => return Some(Err(error.into())),
        Ok(there) => there,
    };
    let path = directory::directory(config);
    let text =
        if there { format!("cleared: {}", path.display()) } else { format!("nothing there: {}", path.display()) };
    show(place.json, &json!({ "directory": path, "cleared": there }), &text);
    Some(Ok(0))
}

fn client(place: &DiskPlace, config: Option<&Config>) -> Result<AdminClient, admin_client::Error> {
    let url = place
        .admin()
        .map(str::to_owned)
        .or_else(|| config.map(|config| reachable(config.listen.admin, &config.admin.tls)));
    let configured = config.map(|config| config.admin.token.as_str()).filter(|token| !token.is_empty());
    let token = place.admin_token().or(configured);
    AdminClient::to(&url.unwrap_or_default(), token, &place.tls)
}

/// How an address that is listened on is reached from this machine.
fn reachable(mut address: SocketAddr, tls: &tls::Config) -> String {
    if address.ip().is_unspecified() {
        let localhost = if address.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(localhost);
    }
    let scheme = if tls.is_on() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// Asks who sits there whether it is meant; scripts mean what they say.
fn confirm(place: &DiskPlace, config: Option<&Config>) -> Result<(), Error> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    let whose = match config {
        Some(config) => directory::directory(config).display().to_string(),
        None => format!("the disk tier of {}", place.admin().unwrap_or_default()),
    };
    eprint!("Remove everything in {whose}? [y/N] (--yes does not ask) ");
    let mut answer = String::new();
    let read = io::stderr().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Error::Declined),
    }
}

async fn stats(tier: &Tier, json: bool) -> Result<u8, Error> {
    let stats = tier.stats().await?;
    let stats = serde_json::to_value(stats).map_err(|error| Error::Failed(error.to_string()))?;
    show(json, &stats, table(&stats).trim_end());
    Ok(0)
}

async fn verify(tier: &Tier, json: bool) -> Result<u8, Error> {
    let found = match tier {
        Tier::Gateway(client) => watch(client, DiskCall::Verify).await?.verified,
        Tier::Directory(l3) => Some(verified_here(l3).await?),
    };
    let found = found.unwrap_or_default();
    show(json, &found, &verified(&found));
    Ok(match found {
        _ if !found.is_sound() => DAMAGED,
        _ if found.cut_short => 1,
        _ => 0,
    })
}

async fn verified_here(l3: &L3) -> Result<Verified, Error> {
    let bar = bar(l3.stats().contents);
    let shown = bar.clone();
    let stop = tokio_util::sync::CancellationToken::new();
    let (stopped, stopping) = (stop.clone(), stop.drop_guard());
    let watch = move |found: &Verified| {
        shown.set_position(found.contents);
        !stopped.is_cancelled()
    };
    let verifying = l3.verify(watch);
    tokio::pin!(verifying);
    let found = tokio::select! {
        found = &mut verifying => found,
        _ = tokio::signal::ctrl_c() => {
            drop(stopping);
            verifying.await
        }
    };
    bar.finish_and_clear();
    let mut found = found.map_err(|error| Error::Failed(error.to_string()))?;
    // As it was found when the tier was opened.
    found.index_damaged |= l3.stats().damaged_indexes > 0;
    Ok(found)
}

async fn gc(tier: &Tier, json: bool) -> Result<u8, Error> {
    let found = match tier {
        Tier::Gateway(client) => watch(client, DiskCall::Gc).await?.collected,
        Tier::Directory(l3) => Some(l3.gc().await.map_err(|error| Error::Failed(error.to_string()))?),
    };
    let found = found.unwrap_or_default();
    show(json, &found, &collected(&found));
    Ok(u8::from(found.cut_short))
}

async fn clear(tier: &Tier, json: bool) -> Result<u8, Error> {
    let Tier::Gateway(client) = tier else { return Err(Error::Failed("the directory was left by its gateway".into())) };
    let stats: DiskStats = client.get("/disk").await?;
    let task = watch(client, DiskCall::Clear).await?;
    let (mut figures, mut text) = (json!({ "directory": stats.directory, "cleared": true }), String::new());
    if let Some(cleared) = task.cleared {
        for (name, figure) in
            [("entries", cleared.entries), ("contents", cleared.contents), ("physical_bytes", cleared.physical_bytes)]
        {
            figures[name] = figure.into();
        }
        text = format!(": {} entries, {}", cleared.entries, ByteSize::b(cleared.physical_bytes));
    }
    show(json, &figures, &format!("cleared: {}{text}", stats.directory));
    Ok(0)
}

impl Tier {
    async fn stats(&self) -> Result<DiskStats, Error> {
        match self {
            Self::Gateway(client) => Ok(client.get("/disk").await?),
            Self::Directory(l3) => Ok(DiskStats::of(l3)),
        }
    }
}

/// Has a gateway do it, and waits for its end; Ctrl-C stops a `verify`.
async fn watch(client: &AdminClient, call: DiskCall) -> Result<DiskTask, Error> {
    let path = format!("/disk/{}", call.name());
    let stats: DiskStats = client.get("/disk").await?;
    let bar = if call == DiskCall::Verify { bar(stats.stats.contents) } else { ProgressBar::hidden() };
    let mut task: DiskTask = client.post(&path, &Value::Null).await?;
    while task.state == DiskState::Running {
        tokio::select! {
            () = tokio::time::sleep(POLL) => task = client.get(&path).await?,
            _ = tokio::signal::ctrl_c() => task = client.delete(&path).await?,
        }
        bar.set_position(task.verified.map_or(0, |found| found.contents));
    }
    bar.finish_and_clear();
    match task.state {
        DiskState::Failed => Err(Error::Failed(task.error.unwrap_or_else(|| "it failed".to_owned()))),
        _ => Ok(task),
    }
}

fn bar(contents: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}");
    ProgressBar::new(contents).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(as_json: bool, value: &impl Serialize, text: &str) {
    let json = || serde_json::to_string_pretty(value).unwrap_or_default();
    // A reader that has gone away is no error of ours.
    let _ = writeln!(io::stdout(), "{}", if as_json { json() } else { text.to_owned() });
}

fn verified(found: &Verified) -> String {
    let read = format!("read {} entries and {} files, {}", found.entries, found.contents, ByteSize::b(found.bytes));
    let kinds =
        [(found.unreadable, "entries unreadable"), (found.corrupt, "files corrupt"), (found.missing, "files missing")];
    let mut wrong: Vec<_> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if found.index_damaged {
        wrong.push("the index damaged: an empty one took its place".to_owned());
    }
    let found_wrong =
        if wrong.is_empty() { "all as it was written".to_owned() } else { format!("{}; removed", wrong.join(", ")) };
    let end = if found.cut_short { " (stopped before the end)" } else { "" };
    format!("{read}: {found_wrong}{end}")
}

fn collected(found: &Collected) -> String {
    let kinds = [
        (found.orphans, "files that nothing named"),
        (found.lost, "entries without their file"),
        (found.leaked, "files that were counted and not named"),
    ];
    let removed: Vec<_> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let removed =
        if removed.is_empty() { "nothing to remove".to_owned() } else { format!("removed {}", removed.join(", ")) };
    let end = if found.cut_short { " (stopped before the end)" } else { "" };
    format!("compared {} files: {removed}{end}", found.contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_in_one_line() {
        let sound = Verified { entries: 3, contents: 2, bytes: 2048, ..Verified::default() };
        assert_eq!(verified(&sound), "read 3 entries and 2 files, 2.0 KiB: all as it was written");
        let damaged = Verified { corrupt: 1, missing: 4, cut_short: true, ..sound };
        assert_eq!(
            verified(&damaged),
            "read 3 entries and 2 files, 2.0 KiB: 1 files corrupt, 4 files missing; removed (stopped before the end)"
        );
        assert_eq!(
            collected(&Collected { contents: 5, ..Collected::default() }),
            "compared 5 files: nothing to remove"
        );
        let orphans = Collected { contents: 5, orphans: 2, lost: 1, ..Collected::default() };
        assert_eq!(
            collected(&orphans),
            "compared 5 files: removed 2 files that nothing named, 1 entries without their file"
        );
    }

    #[test]
    fn an_address_for_all_interfaces_is_reached_on_this_machine() {
        let reachable = |address: &str| reachable(address.parse().expect("an address"), &tls::Config::default());
        assert_eq!(reachable("0.0.0.0:8081"), "http://127.0.0.1:8081");
        assert_eq!(reachable("[::]:8081"), "http://[::1]:8081");
        assert_eq!(reachable("10.0.0.1:1"), "http://10.0.0.1:1");
    }
}
