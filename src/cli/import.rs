//! `larder import`: what is in a file into a gateway.

use std::{
    convert::Infallible,
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::{fs::File, io::AsyncReadExt};
use url::form_urlencoded::Serializer;

use super::{
    admin_client::AdminClient,
    args::Import,
    export::{DAMAGED, Error, STEP},
    plain::plain,
    progress::Progress,
};
use crate::cache::import::Imported;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

/// Sends the file, and shows what came of it; what to end with.
pub async fn run(args: Import) -> Result<u8, Error> {
    let client = AdminClient::new(&args.client)?;
    let (file, length) = open(&args.file).await?;
    let sent = Arc::new(AtomicU64::new(0));
    let path = path(&args);
    let uploading = client.upload::<Imported>(&path, content(file, Arc::clone(&sent)));
    let interrupted = Error::Interrupted("interrupted: what had been taken by then is stored, and the rest is not");
    let mut progress = Progress::new("sent bytes", length, true);
    let imported = tokio::select! {
        imported = uploading => imported,
        () = show(&mut progress, &sent) => return Err(interrupted),
        _ = tokio::signal::ctrl_c() => return Err(interrupted),
    };
    progress.end();
    let imported = imported?;
    print!("{}", summary(&imported));
    if let Some(problem) = &imported.problem {
        eprintln!("larder: {}", plain(problem));
    }
    Ok(if imported.complete { 0 } else { DAMAGED })
}

fn path(args: &Import) -> String {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(args.routes.iter().map(|route| ("route", route)));
    let flags = [("dry_run", args.dry_run), ("foreign", args.foreign), ("stale", args.stale)];
    for (name, _) in flags.into_iter().filter(|(_, is)| *is) {
        query.append_pair(name, "true");
    }
    format!("/import?{}", query.finish())
}

/// What is to be sent, and how long it is where that is known.
async fn open(path: &Path) -> Result<(File, Option<u64>), Error> {
    if path == Path::new("-") {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(Error::of(path))?;
        return Ok((File::from_std(stdin.into()), None));
    }
    let file = File::open(path).await.map_err(Error::of(path))?;
    let length = file.metadata().await.map_err(Error::of(path))?.len();
    Ok((file, Some(length)))
}

/// The bytes of the file; one that cannot be read any more ends early, and the gateway finds that it does.
fn content(
    file: File,
    sent: Arc<AtomicU64>,
) -> impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static {
    StreamBody::new(Box::pin(stream::unfold((file, sent), async |(mut file, sent)| {
        let mut step = vec![0; STEP];
        let read = file.read(&mut step).await.unwrap_or(0);
        step.truncate(read);
        sent.fetch_add(read as u64, Relaxed);
        (read > 0).then(|| (Ok(Frame::data(Bytes::from(step))), (file, sent)))
    })))
}

/// Shows how far it is, without an end.
async fn show(progress: &mut Progress, sent: &AtomicU64) {
    loop {
        tokio::time::sleep(TICK).await;
        progress.at(sent.load(Relaxed), String::new);
    }
}

fn summary(imported: &Imported) -> String {
    let Imported {
        stored,
        bytes,
        newer,
        expired,
        purged,
        too_large,
        unknown_route,
        refused,
        unreadable,
        not_asked,
        ..
    } = imported;
    let done = if imported.dry_run { "would import" } else { "imported" };
    let mut text = format!("{done}: {stored} entries, {} of content\n", ByteSize(*bytes).display().iec());
    let left = [
        (newer, "as new or newer here"),
        (expired, "past all use"),
        (purged, "purged since"),
        (too_large, "too large for this gateway"),
        (unknown_route, "of a route that is not here"),
        (refused, "for which no tier had room"),
        (unreadable, "not to be read"),
        (not_asked, "not asked for"),
    ];
    for (count, why) in left.into_iter().filter(|(count, _)| **count > 0) {
        text.push_str(&format!("  left out: {count} {why}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_was_left_out() {
        let imported = Imported { stored: 2, bytes: 10, purged: 1, dry_run: true, ..Imported::default() };
        assert_eq!(summary(&imported), "would import: 2 entries, 10 B of content\n  left out: 1 purged since\n");
    }
}
