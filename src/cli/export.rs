//! `larder export`: what a gateway has stored into a file; and what is in such a file, without a gateway.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use bytesize::ByteSize;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use url::form_urlencoded::Serializer;

use super::{
    admin_client::{self, AdminClient},
    args::Export,
    listing,
    progress::Progress,
    target::{Target, is_standard},
};
use crate::archive::{self, End, Header, Item, Reader};

/// What is ended with where an archive is damaged or incomplete (`EX_DATAERR` of sysexits.h).
pub(super) const DAMAGED: u8 = 65;

/// Bytes of a file that are read at once.
pub(super) const STEP: usize = 256 << 10;

/// How long what was begun may take to go, once it is asked to.
const TAKEN_AWAY: Duration = Duration::from_secs(1);

/// Why there is no archive, or nothing to be seen in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The gateway said no, or was not reached.
    #[error(transparent)]
    Admin(#[from] admin_client::Error),
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What came is no archive, or no whole one.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// Signals cannot be listened for.
    #[error("signals cannot be listened for")]
    Signals(#[source] io::Error),
    /// Somebody wanted it to end.
    #[error("{0}")]
    Interrupted(&'static str),
}

impl Error {
    pub(super) fn of(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }
}

/// Writes the archive, or lists what is in one; what to end with.
pub async fn run(args: Export) -> Result<u8, Error> {
    if args.list {
        return list(&args.file);
    }
    // A command that a signal kills would leave the file that it has begun.
    let mut ending = Ending::new().map_err(Error::Signals)?;
    // A task of its own: a pipe that nobody reads holds it up, and signals are to be heard all the same.
    let mut exporting = tokio::spawn(async move { exported(&args).await });
    let ended = tokio::select! {
        ended = &mut exporting => Some(ended),
        () = ending.asked() => {
            exporting.abort();
            timeout(TAKEN_AWAY, exporting).await.ok()
        }
    };
    match ended {
        Some(Ok(exported)) => exported,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(Err(_)) | None => Err(Error::Interrupted("interrupted: no whole archive was written")),
    }
}

async fn exported(args: &Export) -> Result<u8, Error> {
    let client = AdminClient::new(&args.client)?;
    let content = client.download(&path(args)).await?;
    let mut target = Target::at(&args.file)?;
    let (header, end) = receive(content, &mut target).await?;
    let is_private = target.is_private();
    target.keep()?;
    eprintln!("{}", summary(is_private, &header, &end));
    Ok(0)
}

/// The signals by which a command is asked to end. SIGHUP is none: who says `nohup` wants it to go on.
struct Ending([Signal; 2]);

impl Ending {
    fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn asked(&mut self) {
        let Self([interrupt, terminate]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

fn path(args: &Export) -> String {
    let mut query = Serializer::new(String::new());
    let lists = [
        ("route", &args.routes),
        ("url", &args.urls),
        ("prefix", &args.prefixes),
        ("tag", &args.tags),
        ("host", &args.hosts),
        ("key", &args.keys),
    ];
    for (name, values) in lists {
        query.extend_pairs(values.iter().map(|value| (name, value)));
    }
    for (name, _) in [("fresh_only", args.fresh_only), ("plain", args.plain)].into_iter().filter(|(_, is)| *is) {
        query.append_pair(name, "true");
    }
    format!("/export?{}", query.finish())
}

/// Writes what comes, and reads along: only a whole archive is one.
async fn receive(mut content: Incoming, target: &mut Target) -> Result<(Header, End), Error> {
    let (mut reader, mut counted) = (Reader::default(), Counted::default());
    let mut progress = Progress::new("exported entries", None, false);
    while let Some(frame) = content.frame().await {
        // What breaks off here is incomplete there.
        let Ok(Ok(bytes)) = frame.map(hyper::body::Frame::into_data) else { break };
        target.write(&bytes)?;
        reader.push(bytes);
        while let Some(item) = reader.item()? {
            counted.take(item, &progress);
        }
        progress.at(counted.entries, || ByteSize(counted.bytes).display().iec().to_string());
    }
    progress.end();
    reader.finish()?;
    Ok((counted.header, counted.end))
}

#[derive(Default)]
struct Counted {
    header: Header,
    entries: u64,
    bytes: u64,
    end: End,
}

impl Counted {
    fn take(&mut self, item: Item, progress: &Progress) {
        match item {
            Item::Header(header) => {
                progress.set_total(header.expected);
                self.header = *header;
            }
            Item::Content(piece) => self.bytes += piece.len() as u64,
            Item::Whole => self.entries += 1,
            Item::End(end) => self.end = end,
            Item::Entry(_) | Item::Dropped => {}
        }
    }
}

fn summary(is_private: bool, header: &Header, end: &End) -> String {
    let End { entries, bytes, useless, unreadable } = end;
    let bytes = ByteSize(*bytes).display().iec();
    let mut text =
        format!("exported: {entries} entries, {bytes} of content; left out: {useless} purged or past all use");
    if *unreadable > 0 {
        text.push_str(&format!(", {unreadable} that could not be read"));
    }
    if header.memory_only {
        text.push_str("\nwhat lies on the disk is missing: it is enciphered (l3.encrypt) under keys that nobody has");
    }
    let whose = if is_private { ", and only you can read the file" } else { "" };
    text.push_str(&format!("\nit holds all of these answers in clear{whose}: keep it like the answers themselves"));
    text
}

/// One line of JSON for each entry of a file.
fn list(path: &Path) -> Result<u8, Error> {
    let mut input: Box<dyn Read> = if is_standard(path) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(Error::of(path))?)
    };
    let (mut reader, mut step, mut out) = (Reader::default(), vec![0; STEP], io::stdout().lock());
    let mut listing = listing::Listing::default();
    let damaged = loop {
        match input.read(&mut step).map_err(Error::of(path))? {
            0 => break reader.finish().err(),
            read => reader.push(Bytes::copy_from_slice(&step[..read])),
        }
        match listed(&mut reader, &mut listing, &mut out) {
            Ok(None) => {}
            // Who reads has seen enough.
            Ok(Some(_)) => return Ok(0),
            Err(error) => break Some(error),
        }
    };
    match damaged {
        None => Ok(0),
        Some(error @ (archive::Error::Magic | archive::Error::Version(_))) => Err(error.into()),
        Some(error) => {
            eprintln!("larder: {error}");
            Ok(DAMAGED)
        }
    }
}

/// Writes lines of all that can be read by now; an error of the output ends it.
fn listed(
    reader: &mut Reader,
    listing: &mut listing::Listing,
    out: &mut impl Write,
) -> Result<Option<io::Error>, archive::Error> {
    while let Some(item) = reader.item()? {
        if let Some(line) = listing.line(item)
            && let Err(error) = writeln!(out, "{line}")
        {
            return Ok(Some(error));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_is_missing_and_who_can_read_it() {
        let end = End { entries: 3, bytes: 2048, useless: 1, unreadable: 0 };
        let text = summary(true, &Header::default(), &end);
        assert!(text.starts_with("exported: 3 entries, 2.0 KiB of content; left out: 1 purged"), "{text}");
        assert!(text.contains("in clear, and only you can read the file"), "{text}");
        let header = Header { memory_only: true, ..Header::default() };
        let text = summary(false, &header, &End { unreadable: 2, ..end });
        assert!(text.contains("2 that could not be read") && text.contains("l3.encrypt"), "{text}");
        assert!(!text.contains("only you"), "{text}");
    }
}
