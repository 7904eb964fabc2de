//! Writes a file.

use std::{io, io::Write};

use serde::Serialize;

use super::{
    End, EntryHead, Header, PIECE_MAX,
    record::{Chain, Kind, length, preamble},
};

/// What a file of several MiB/s costs a tenth of a core to write; higher levels gain a few per cent.
const LEVEL: i32 = 3;

/// Whether a file is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// As one zstd stream.
    #[default]
    Zstd,
    /// It is not.
    Plain,
}

/// Writes one file into memory, from where it is to be taken as it grows.
pub struct Writer {
    out: Out,
    chain: Chain,
    key: [u8; 32],
}

enum Out {
    Plain(Vec<u8>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl Writer {
    /// Begins a file, which is sealed under `key`.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn new(form: Form, key: [u8; 32], header: &Header) -> io::Result<Self> {
        let out = match form {
            Form::Plain => Out::Plain(Vec::new()),
            Form::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
                encoder.include_checksum(true)?;
                Out::Zstd(Box::new(encoder))
            }
        };
        let mut writer = Self { out, chain: Chain::begin(), key };
        writer.put(&preamble())?;
        writer.json(Kind::Header, header)?;
        Ok(writer)
    }

    /// Begins an entry. Its content is to follow, all of it or [`Writer::dropped`]. `false`: its head is too long, and
    /// nothing was written.
    ///
    /// # Errors
    /// Where there is no memory for it; as all that follows.
    pub fn entry(&mut self, head: &EntryHead) -> io::Result<bool> {
        let Some(payload) = head.encode() else { return Ok(false) };
        self.record(Kind::Entry, &payload)?;
        Ok(true)
    }

    /// Appends to the content of the entry.
    ///
    /// # Errors
    /// As [`Writer::entry`].
    pub fn content(&mut self, content: &[u8]) -> io::Result<()> {
        content.chunks(PIECE_MAX).try_for_each(|piece| self.record(Kind::Content, piece))
    }

    /// Says that the rest of the content cannot be had.
    ///
    /// # Errors
    /// As [`Writer::entry`].
    pub fn dropped(&mut self) -> io::Result<()> {
        self.record(Kind::Dropped, &[])
    }

    /// Bytes that have been written and can be sent.
    pub fn ready(&self) -> usize {
        match &self.out {
            Out::Plain(out) => out.len(),
            Out::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Takes what has been written and can be sent.
    pub fn take(&mut self) -> Vec<u8> {
        match &mut self.out {
            Out::Plain(out) => std::mem::take(out),
            Out::Zstd(encoder) => std::mem::take(encoder.get_mut()),
        }
    }

    /// Ends the file; what is still to be sent of it.
    ///
    /// # Errors
    /// As [`Writer::entry`].
    pub fn finish(mut self, end: &End) -> io::Result<Vec<u8>> {
        self.json(Kind::End, end)?;
        match self.out {
            Out::Plain(out) => Ok(out),
            Out::Zstd(encoder) => encoder.finish(),
        }
    }

    fn json(&mut self, kind: Kind, value: &impl Serialize) -> io::Result<()> {
        self.record(kind, &serde_json::to_vec(value)?)
    }

    fn record(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        self.chain = self.chain.with(kind as u8, payload);
        let (check, seal) = (self.chain.check(), self.chain.seal(&self.key));
        self.put(&[kind as u8])?;
        self.put(&length(payload))?;
        self.put(payload)?;
        self.put(&check)?;
        self.put(&seal)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.out {
            Out::Plain(out) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Out::Zstd(encoder) => encoder.write_all(bytes),
        }
    }
}
