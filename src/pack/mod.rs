//! Packs: calls to models that were recorded with their answers, in one file that people read, compare and commit.
//!
//! ```text
//! {"larder":"pack","version":1}
//! {"route":"openai","request":{…},"response":{…}}
//! ```
//!
//! A line a call, in the order in which they were recorded; of two for the same request the later counts. A line is
//! appended with one write. One that a crash cut off is dropped by the next who writes, and told of. Who writes has the
//! file for itself; any number may read. What is in a call, and when two are the same, is not known here.

mod line;

use std::{
    collections::HashMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

pub use self::line::{Content, Recording, Request, Response};
use crate::files;

/// The first line.
const HEAD: &str = "{\"larder\":\"pack\",\"version\":1}";

/// A file of recordings.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    bytes_max: u64,
    file: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("pack {path:?}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not there, and is to be read only.
    #[error("there is no pack {0:?}: record one first, with llm.mode = \"record\" or \"auto\"")]
    Missing(PathBuf),
    /// Another process has it.
    #[error("pack {0:?} is in use by another process: one that records has it for itself")]
    InUse(PathBuf),
    /// Its first line is another one.
    #[error("{0:?} is no pack of this version: its first line is not {HEAD}")]
    Foreign(PathBuf),
    /// A line says nothing that can be read.
    #[error("pack {path:?}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It is larger than `llm.pack_bytes_max`.
    #[error("pack {path:?} would have {bytes} bytes, which is more than llm.pack_bytes_max allows ({max})")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit.
        max: u64,
    },
}

impl Pack {
    /// The pack at `path` and what is in it; `writes`: more is to be recorded, and it is made if it is not there.
    ///
    /// # Errors
    /// Where it cannot be read, is no pack, or has a line that is none; where another process has it.
    pub fn open(path: &Path, writes: bool, bytes_max: u64) -> Result<(Self, Vec<Recording>), Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mut file = match open(path, writes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !writes => {
                return Err(Error::Missing(path.to_owned()));
            }
            opened => opened.map_err(failed)?,
        };
        hold(&file, writes, path)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes > bytes_max {
            return Err(Error::TooLarge { path: path.to_owned(), bytes, max: bytes_max });
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let Parsed { recordings, is_tidy } = parse(&text, path)?;
        if writes && !is_tidy {
            let content = written(&recordings);
            file = files::replace(path, &content, true).map_err(failed)?;
            hold(&file, true, path)?;
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok((Self { path: path.to_owned(), bytes_max, file: Mutex::new(Open { file, bytes }) }, recordings))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Largest it may become.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Adds a recording. It is in the file when this returns, and survives the end of this process.
    ///
    /// # Errors
    /// Where it does not fit, or cannot be written.
    pub fn append(&self, recording: &Recording) -> Result<(), Error> {
        let line = line::written(recording);
        let mut open = self.file.lock();
        let bytes = open.bytes + line.len() as u64;
        if bytes > self.bytes_max {
            return Err(Error::TooLarge { path: self.path.clone(), bytes, max: self.bytes_max });
        }
        if let Err(source) = open.file.write_all(&line) {
            // Half a line would make all that follow unreadable.
            let before = open.bytes;
            let _ = open.file.set_len(before).and_then(|()| open.file.seek(SeekFrom::Start(before)));
            return Err(Error::File { path: self.path.clone(), source });
        }
        open.bytes = bytes;
        Ok(())
    }
}

fn open(path: &Path, writes: bool) -> io::Result<File> {
    if !writes {
        return OpenOptions::new().read(true).open(path);
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    files::private().truncate(false).open(path)
}

fn hold(file: &File, writes: bool, path: &Path) -> Result<(), Error> {
    let held = if writes { file.try_lock() } else { file.try_lock_shared() };
    held.map_err(|error| match error {
        TryLockError::WouldBlock => Error::InUse(path.to_owned()),
        TryLockError::Error(source) => Error::File { path: path.to_owned(), source },
    })
}

struct Parsed {
    recordings: Vec<Recording>,
    /// Whether the file is what would be written of them.
    is_tidy: bool,
}

fn parse(text: &[u8], path: &Path) -> Result<Parsed, Error> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut is_tidy = whole == text.len() && !text.is_empty();
    let mut lines = text[..whole].split(|byte| *byte == b'\n').enumerate();
    match lines.next() {
        Some((_, first)) if first.trim_ascii() == HEAD.as_bytes() => {}
        _ if HEAD.as_bytes().starts_with(text) => {}
        _ => return Err(Error::Foreign(path.to_owned())),
    }
    let mut recordings: Vec<Option<Recording>> = Vec::new();
    let mut latest = HashMap::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let recording: Recording = serde_json::from_slice(line).map_err(|error| Error::Line {
            path: path.to_owned(),
            line: number + 1,
            reason: error.to_string(),
        })?;
        let place = recordings.len();
        if let Some(earlier) = latest.insert((recording.route.clone(), recording.request.clone()), place) {
            recordings[earlier] = None;
            is_tidy = false;
        }
        recordings.push(Some(recording));
    }
    if whole < text.len() {
        tracing::warn!(?path, "the last line of the pack was cut off, and is left out");
    }
    Ok(Parsed { recordings: recordings.into_iter().flatten().collect(), is_tidy })
}

fn written(recordings: &[Recording]) -> Vec<u8> {
    let mut content = format!("{HEAD}\n").into_bytes();
    for recording in recordings {
        content.extend(line::written(recording));
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(body: &str, answer: &str) -> Recording {
        let text = |text: &str| Content::of(text.as_bytes());
        Recording {
            route: "openai".into(),
            request: Request {
                method: "POST".into(),
                path: "/v1/chat/completions".into(),
                query: None,
                fields: vec![("content-type".into(), "application/json".into())],
                content: text(body),
            },
            response: Response { status: 200, fields: vec![], took_ms: 812, content: text(answer) },
        }
    }

    fn answers(recordings: &[Recording]) -> Vec<String> {
        recordings
            .iter()
            .map(|one| String::from_utf8(one.response.content.bytes().expect("content")).expect("text"))
            .collect()
    }

    #[test]
    fn what_is_recorded_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("below").join("calls.jsonl");
        assert!(matches!(Pack::open(&path, false, 1000), Err(Error::Missing(_))));
        let (pack, recordings) = Pack::open(&path, true, 10_000).expect("made");
        assert_eq!(recordings, []);
        let all = [recording("1", "one"), recording("2", "two\n"), recording("1", "one again")];
        all.iter().for_each(|one| pack.append(one).expect("written"));
        assert!(matches!(Pack::open(&path, false, 10_000), Err(Error::InUse(_))));
        assert!(matches!(Pack::open(&path, true, 10_000), Err(Error::InUse(_))));
        drop(pack);
        let (reading, recordings) = Pack::open(&path, false, 10_000).expect("there");
        assert_eq!(recordings, [all[1].clone(), all[2].clone()]);
        assert_eq!(std::fs::read_to_string(&path).expect("there").lines().count(), 4);
        Pack::open(&path, false, 10_000).expect("readers do not mind each other");
        drop(reading);
        drop(Pack::open(&path, true, 10_000).expect("tidied"));
        assert_eq!(std::fs::read_to_string(&path).expect("there").lines().count(), 3);
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("calls.jsonl");
        let (pack, _) = Pack::open(&path, true, 10_000).expect("made");
        pack.append(&recording("1", "one")).expect("written");
        pack.append(&recording("2", "two")).expect("written");
        drop(pack);
        let whole = std::fs::read(&path).expect("there");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            let known = ["one", "two"][..lines.saturating_sub(1)].to_vec();
            for writes in [false, true] {
                let (pack, recordings) = Pack::open(&path, writes, 10_000).expect("a pack");
                assert_eq!(answers(&recordings), known, "{cut}");
                if writes {
                    pack.append(&recording("3", "three")).expect("written");
                }
            }
            let (_, recordings) = Pack::open(&path, false, 10_000).expect("a pack");
            assert_eq!(recordings.len(), known.len() + 1, "{cut}");
        }
    }

    #[test]
    fn what_is_no_pack_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("calls.jsonl");
        for foreign in ["hello\n", "{}\n", "{\"larder\":\"pack\",\"version\":2}\n", "x"] {
            std::fs::write(&path, foreign).expect("written");
            for writes in [false, true] {
                assert!(matches!(Pack::open(&path, writes, 1000), Err(Error::Foreign(_))), "{foreign}");
                assert_eq!(std::fs::read_to_string(&path).expect("there"), foreign, "it is left as it is");
            }
        }
        std::fs::write(&path, format!("{HEAD}\n\n{{\"route\":1}}\n")).expect("written");
        assert!(matches!(Pack::open(&path, true, 1000), Err(Error::Line { line: 3, .. })));
    }

    #[test]
    fn it_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("calls.jsonl");
        let (pack, _) = Pack::open(&path, true, 400).expect("made");
        pack.append(&recording("1", "one")).expect("written");
        assert!(matches!(pack.append(&recording("2", "two")), Err(Error::TooLarge { max: 400, .. })));
        drop(pack);
        assert!(matches!(Pack::open(&path, false, 100), Err(Error::TooLarge { max: 100, .. })));
        assert_eq!(Pack::open(&path, false, 400).expect("there").1.len(), 1);
    }
}
