//! Reads a file, as its bytes come.

use bytes::{Buf, Bytes, BytesMut};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::{
    End, EntryHead, Header, RECORD_MAX, VERSION,
    record::{BEFORE, BEHIND, CHECK, Chain, Kind, MAGIC, PREAMBLE, SEAL},
};

/// What a zstd stream begins with (RFC 8878 section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Memory that a zstd stream may ask for, as a power of two: 8 MiB, what its highest common level takes.
const WINDOW_LOG_MAX: u32 = 23;

/// Bytes that are taken from what was given, or unpacked of it, at once.
const STEP: usize = 64 << 10;

/// What comes next in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// What is said of all of it.
    Header(Box<Header>),
    /// An entry begins.
    Entry(Box<EntryHead>),
    /// More of its content.
    Content(Bytes),
    /// It is whole.
    Whole,
    /// It never will be: nothing of it is to be used.
    Dropped,
    /// That was all.
    End(End),
}

/// Why bytes are no such file, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are something else.
    #[error("this is no archive of stored responses")]
    Magic,
    /// Another release wrote them.
    #[error(
        "this archive is of format version {0}, and this release reads version {VERSION}: use the release that wrote it"
    )]
    Version(u16),
    /// They are not as they were written.
    #[error("the archive is damaged after {records} whole records")]
    Damaged {
        /// Records that were whole.
        records: u64,
    },
    /// They were written, or changed, by somebody who does not have the secret.
    #[error(
        "the archive was not sealed with this secret after {records} records: somebody else has written or changed it"
    )]
    Forged {
        /// Records that were sealed.
        records: u64,
    },
    /// They end before the file does.
    #[error("the archive is incomplete: it breaks off after {records} whole records")]
    Incomplete {
        /// Records that were whole.
        records: u64,
    },
}

/// Reads one file.
pub struct Reader {
    input: Input,
    /// What was given and not looked at yet.
    given: Bytes,
    /// What is not compressed any more and not read yet.
    clear: BytesMut,
    chain: Chain,
    key: Option<[u8; 32]>,
    /// The seal of the header, until a key is known.
    first_seal: [u8; SEAL],
    records: u64,
    state: State,
}

enum Input {
    /// Too little has come to tell.
    Unknown,
    Plain,
    Zstd(Box<Decoder<'static>>),
    /// The stream has come to its end.
    Unpacked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    Header,
    /// Between entries.
    Between,
    /// So much of an entry's content is missing.
    Within(u64),
    Ended,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            input: Input::Unknown,
            given: Bytes::new(),
            clear: BytesMut::new(),
            chain: Chain::begin(),
            key: None,
            first_seal: [0; SEAL],
            records: 0,
            state: State::Preamble,
        }
    }
}

impl Reader {
    /// Gives it more bytes. All that came before is to have been read: [`Reader::item`] has said `None`.
    pub fn push(&mut self, bytes: Bytes) {
        if self.given.is_empty() {
            self.given = bytes;
        } else {
            self.given = [&self.given[..], &bytes[..]].concat().into();
        }
    }

    /// From here on everything has to be sealed under `key`, and the header too.
    ///
    /// # Errors
    /// Where the header is not.
    pub fn trust(&mut self, key: [u8; 32]) -> Result<(), Error> {
        self.key = Some(key);
        let sealed = self.records > 0 && self.chain.seal(&key) == self.first_seal;
        if sealed { Ok(()) } else { Err(Error::Forged { records: 0 }) }
    }

    /// What comes next; `None` where more bytes are needed, or where there are none to come.
    ///
    /// # Errors
    /// Where the bytes are not as they were written. Nothing can be read after that.
    pub fn item(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.parsed()? {
                return Ok(Some(item));
            }
            if !self.unpack()? {
                return Ok(None);
            }
        }
    }

    /// Whether all bytes have been given that belong to the file.
    ///
    /// # Errors
    /// Where the file does not end here.
    pub fn finish(&self) -> Result<(), Error> {
        match (&self.input, self.state) {
            (Input::Plain | Input::Unpacked, State::Ended) => Ok(()),
            (Input::Unknown, _) => Err(Error::Magic),
            _ => Err(Error::Incomplete { records: self.records }),
        }
    }

    /// Brings some of what was given into the clear. Whether there was any.
    fn unpack(&mut self) -> Result<bool, Error> {
        let damaged = Error::Damaged { records: self.records };
        match &mut self.input {
            Input::Unknown if self.given.len() < ZSTD.len() => Ok(false),
            Input::Unknown => {
                self.input = input_of(&self.given)?;
                Ok(true)
            }
            _ if self.given.is_empty() => Ok(false),
            Input::Unpacked => Err(damaged),
            Input::Plain => {
                let step = self.given.len().min(STEP);
                self.clear.extend_from_slice(&self.given.split_to(step));
                Ok(true)
            }
            Input::Zstd(decoder) => {
                let mut step = vec![0; STEP];
                let mut from = InBuffer::around(&self.given);
                let mut to = OutBuffer::around(&mut step);
                let left = decoder.run(&mut from, &mut to).map_err(|_| damaged)?;
                let (taken, unpacked) = (from.pos(), to.pos());
                self.given.advance(taken);
                self.clear.extend_from_slice(&step[..unpacked]);
                if left == 0 {
                    self.input = Input::Unpacked;
                }
                // Nothing taken and nothing unpacked is a stream that needs more.
                Ok(taken > 0 || unpacked > 0)
            }
        }
    }

    fn parsed(&mut self) -> Result<Option<Item>, Error> {
        match self.state {
            State::Preamble => self.preamble(),
            State::Within(0) => {
                self.state = State::Between;
                Ok(Some(Item::Whole))
            }
            State::Ended if self.clear.is_empty() => Ok(None),
            State::Ended => Err(Error::Damaged { records: self.records }),
            State::Header | State::Between | State::Within(_) => self.record(),
        }
    }

    fn preamble(&mut self) -> Result<Option<Item>, Error> {
        let Some(preamble) = self.clear.first_chunk::<PREAMBLE>() else { return Ok(None) };
        let Some(version) = preamble.strip_prefix(&MAGIC) else { return Err(Error::Magic) };
        match u16::from_le_bytes([version[0], version[1]]) {
            VERSION => self.state = State::Header,
            other => return Err(Error::Version(other)),
        }
        self.clear.advance(PREAMBLE);
        self.record()
    }

    fn record(&mut self) -> Result<Option<Item>, Error> {
        let records = self.records;
        let damaged = || Error::Damaged { records };
        let Some(&[kind, length @ ..]) = self.clear.first_chunk::<BEFORE>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > RECORD_MAX {
            return Err(damaged());
        }
        if self.clear.len() < BEFORE + length + BEHIND {
            return Ok(None);
        }
        let mut record = self.clear.split_to(BEFORE + length + BEHIND).freeze();
        let payload = record.split_to(BEFORE + length).slice(BEFORE..);
        let chain = self.chain.with(kind, &payload);
        if chain.check() != record[..CHECK] {
            return Err(damaged());
        }
        match &self.key {
            Some(key) if chain.seal(key) != record[CHECK..] => return Err(Error::Forged { records: self.records }),
            Some(_) => {}
            None if self.records == 0 => self.first_seal.copy_from_slice(&record[CHECK..]),
            None => {}
        }
        let item = Kind::of(kind).and_then(|kind| self.read(kind, payload)).ok_or_else(damaged)?;
        self.chain = chain;
        self.records += 1;
        Ok(Some(item))
    }

    /// What a record says; `None` where it has no place here.
    fn read(&mut self, kind: Kind, payload: Bytes) -> Option<Item> {
        let (item, state) = match (self.state, kind) {
            (State::Header, Kind::Header) => (Item::Header(serde_json::from_slice(&payload).ok()?), State::Between),
            (State::Between, Kind::Entry) => {
                let entry = EntryHead::decode(&payload)?;
                let length = entry.length;
                (Item::Entry(Box::new(entry)), State::Within(length))
            }
            (State::Within(missing), Kind::Content) if !payload.is_empty() => {
                let missing = missing.checked_sub(payload.len() as u64)?;
                (Item::Content(payload), State::Within(missing))
            }
            (State::Within(_), Kind::Dropped) if payload.is_empty() => (Item::Dropped, State::Between),
            (State::Between, Kind::End) => (Item::End(serde_json::from_slice(&payload).ok()?), State::Ended),
            _ => return None,
        };
        self.state = state;
        Some(item)
    }
}

fn input_of(given: &[u8]) -> Result<Input, Error> {
    if given.starts_with(&ZSTD) {
        let mut decoder = Decoder::new().map_err(|_| Error::Magic)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|_| Error::Magic)?;
        return Ok(Input::Zstd(Box::new(decoder)));
    }
    if MAGIC.starts_with(&given[..ZSTD.len()]) { Ok(Input::Plain) } else { Err(Error::Magic) }
}
