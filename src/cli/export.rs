//! `larder export`: what a gateway has stored into a file; and what is in such a file, without a gateway.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use bytesize::ByteSize;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tempfile::NamedTempFile;
use url::form_urlencoded::Serializer;

use super::{
    admin_client::{self, AdminClient},
    args::Export,
    listing,
    progress::Progress,
};
use crate::archive::{self, End, Header, Item, Reader};

/// What is ended with where an archive is damaged or incomplete (`EX_DATAERR` of sysexits.h).
pub(super) const DAMAGED: u8 = 65;

/// Bytes of a file that are read at once.
pub(super) const STEP: usize = 256 << 10;

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
    let client = AdminClient::new(&args.client)?;
    let content = client.download(&path(&args)).await?;
    let mut target = Target::at(&args.file)?;
    let interrupted = Error::Interrupted("interrupted: nothing was written");
    let received = tokio::select! {
        received = receive(content, &mut target) => received,
        _ = tokio::signal::ctrl_c() => Err(interrupted),
    };
    let (header, end) = received?;
    target.keep()?;
    eprintln!("{}", summary(&args.file, &header, &end));
    Ok(0)
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

fn summary(file: &Path, header: &Header, end: &End) -> String {
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
    let whose = if is_stdout(file) { "" } else { ", and only you can read the file" };
    text.push_str(&format!("\nit holds all of these answers in clear{whose}: keep it like the answers themselves"));
    text
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Where an archive goes: to the standard output, or into a file that is there when it is whole, for its owner alone.
enum Target {
    Stdout(io::Stdout),
    File(Box<NamedTempFile>, PathBuf),
}

impl Target {
    fn at(path: &Path) -> Result<Self, Error> {
        if is_stdout(path) {
            return Ok(Self::Stdout(io::stdout()));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".larder-export-").tempfile_in(directory);
        Ok(Self::File(Box::new(file.map_err(Error::of(path))?), path.to_owned()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Stdout(out) => out.write_all(bytes).map_err(Error::of(Path::new("standard output"))),
            Self::File(file, path) => file.write_all(bytes).map_err(Error::of(path)),
        }
    }

    /// Gives it its name.
    fn keep(self) -> Result<(), Error> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(Error::of(Path::new("standard output"))),
            Self::File(file, path) => {
                file.as_file().sync_all().map_err(Error::of(&path))?;
                let kept = file.persist(&path);
                kept.map(|_| ()).map_err(|error| Error::of(&path)(error.error))
            }
        }
    }
}

/// One line of JSON for each entry of a file.
fn list(path: &Path) -> Result<u8, Error> {
    let mut input: Box<dyn Read> = if is_stdout(path) {
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
        let text = summary(Path::new("a"), &Header::default(), &end);
        assert!(text.starts_with("exported: 3 entries, 2.0 KiB of content; left out: 1 purged"), "{text}");
        assert!(text.contains("in clear, and only you can read the file"), "{text}");
        let header = Header { memory_only: true, ..Header::default() };
        let text = summary(Path::new("-"), &header, &End { unreadable: 2, ..end });
        assert!(text.contains("2 that could not be read") && text.contains("l3.encrypt"), "{text}");
        assert!(!text.contains("only you"), "{text}");
    }
}
