//! The file of the index, with a checksum on every page.
//!
//! redb checks no page that it reads, and panics over some it does not understand, even while it unwinds, which nothing
//! can contain. So what it is given here is what it wrote, or an error.
//!
//! ```text
//! header 512 of 4096   what redb keeps in its first page (320 bytes), and a checksum: within one sector, written in one go
//! cell 4096 + 8        a page of redb's and its checksum, bound to its place; as many as there are
//! ```
//!
//! redb writes no page in place that a commit relies on, but for the header, so a write that a crash cut short leaves at
//! worst a cell that nothing points to.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::trouble::Faults;

const PAGE: usize = 4096;
const SUM: usize = 8;
const CELL: usize = PAGE + SUM;

/// What is written of the first page: a sector.
const SECTOR: usize = 512;
const HEADER: usize = SECTOR - SUM;

/// The file, as redb uses it.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    faults: Arc<Faults>,
    damaged: Arc<AtomicBool>,
}

impl Pages {
    pub(super) fn new(file: File, faults: Arc<Faults>) -> Self {
        Self { file, faults, damaged: Arc::default() }
    }

    /// Whether a damaged page was met.
    pub(super) fn damaged(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.damaged)
    }

    /// All of the first page.
    fn header(&self) -> io::Result<Vec<u8>> {
        let mut sector = [0; SECTOR];
        self.read_exact_at(&mut sector, 0)?;
        let (header, sum) = sector.split_at(HEADER);
        // As long as nothing has been written there is nothing to check.
        if sector != [0; SECTOR] && sum != checksum(header, 0) {
            return Err(self.found_damage());
        }
        let mut page = header.to_vec();
        page.resize(PAGE, 0);
        Ok(page)
    }

    fn put_header(&self, page: &[u8]) -> io::Result<()> {
        let (header, rest) = page.split_at(HEADER);
        if rest.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the first page has more than a header"));
        }
        let sector = [header, &checksum(header, 0)].concat();
        self.file.write_all_at(&sector, 0)
    }

    /// Pages from that one on; the first is none of them.
    fn cells(&self, first: u64, pages: &mut [u8]) -> io::Result<()> {
        let mut cells = vec![0; pages.len() / PAGE * CELL];
        self.read_exact_at(&mut cells, place(first))?;
        for ((number, cell), page) in (first..).zip(cells.chunks_exact(CELL)).zip(pages.chunks_exact_mut(PAGE)) {
            let (content, sum) = cell.split_at(PAGE);
            if sum != checksum(content, number) {
                return Err(self.found_damage());
            }
            page.copy_from_slice(content);
        }
        Ok(())
    }

    fn put_cells(&self, first: u64, pages: &[u8]) -> io::Result<()> {
        let mut cells = Vec::with_capacity(pages.len() / PAGE * CELL);
        for (number, page) in (first..).zip(pages.chunks_exact(PAGE)) {
            cells.extend_from_slice(page);
            cells.extend_from_slice(&checksum(page, number));
        }
        self.file.write_all_at(&cells, place(first))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            // It was longer when it was written.
            io::ErrorKind::UnexpectedEof => self.found_damage(),
            _ => error,
        })
    }

    fn found_damage(&self) -> io::Error {
        self.damaged.store(true, Relaxed);
        io::Error::new(io::ErrorKind::InvalidData, "a page has another checksum than when it was written")
    }

    /// Whole pages around a range of bytes: the number of the first, and how many bytes they are.
    fn around(offset: u64, length: usize) -> (u64, usize) {
        let first = offset / PAGE as u64;
        let end = (offset + length as u64).div_ceil(PAGE as u64);
        (first, usize::try_from(end - first).unwrap_or(usize::MAX / PAGE) * PAGE)
    }

    fn pages(&self, first: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut pages = if first == 0 { self.header()? } else { Vec::new() };
        let had = pages.len().min(length);
        pages.resize(length, 0);
        if had < length {
            self.cells(first.max(1), &mut pages[had..])?;
        }
        Ok(pages)
    }
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        let cells = length.saturating_sub(PAGE as u64) / CELL as u64;
        Ok(if length == 0 { 0 } else { (1 + cells) * PAGE as u64 })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (first, length) = Self::around(offset, out.len());
        let aligned = length == out.len() && first > 0;
        if aligned {
            return self.cells(first, out);
        }
        let pages = self.pages(first, length)?;
        let start = (offset % PAGE as u64) as usize;
        out.copy_from_slice(&pages[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.write()?;
        let pages = len.div_ceil(PAGE as u64);
        self.file.set_len(if pages == 0 { 0 } else { place(pages) })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.write()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        let (first, length) = Self::around(offset, data.len());
        if length == data.len() && first > 0 {
            return self.put_cells(first, data);
        }
        let mut pages = self.pages(first, length)?;
        let start = (offset % PAGE as u64) as usize;
        pages[start..start + data.len()].copy_from_slice(data);
        let cells = if first == 0 {
            self.put_header(&pages[..PAGE])?;
            &pages[PAGE..]
        } else {
            &pages[..]
        };
        if cells.is_empty() { Ok(()) } else { self.put_cells(first.max(1), cells) }
    }
}

/// Where the cell of a page is; with the number of pages, the length of the file.
fn place(number: u64) -> u64 {
    PAGE as u64 + (number - 1) * CELL as u64
}

/// Never that of a page of zeros, so that one which was never written is none that was.
fn checksum(page: &[u8], number: u64) -> [u8; SUM] {
    xxh3_64_with_seed(page, number).max(1).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn pages() -> Pages {
        Pages::new(tempfile::tempfile().expect("a file"), Arc::default())
    }

    fn read(pages: &Pages, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; length];
        pages.read(offset, &mut out).map(|()| out)
    }

    #[test]
    fn lengths_are_those_that_were_set() {
        let pages = pages();
        assert_eq!(pages.len().expect("known"), 0);
        for number in [1, 2, 100, 3, 0] {
            pages.set_len(number * 4096).expect("set");
            assert_eq!(pages.len().expect("known"), number * 4096);
        }
    }

    #[test]
    fn any_damage_is_found() {
        let pages = pages();
        pages.set_len(3 * 4096).expect("set");
        pages.write(0, &[7; 320]).expect("written");
        pages.write(4096, &[8; 8192]).expect("written");
        let length = pages.file.metadata().expect("known").len();
        for at in (0..512).chain(4096..length).step_by(97) {
            let mut byte = [0];
            pages.file.read_exact_at(&mut byte, at).expect("there");
            pages.file.write_all_at(&[byte[0] ^ 1], at).expect("written");
            assert_eq!(read(&pages, 0, 3 * 4096).expect_err("damaged").kind(), io::ErrorKind::InvalidData, "{at}");
            pages.file.write_all_at(&byte, at).expect("written");
        }
        read(&pages, 0, 3 * 4096).expect("as it was");
        let mut cell = [0; CELL];
        pages.file.read_exact_at(&mut cell, place(1)).expect("there");
        pages.file.write_all_at(&cell, place(2)).expect("written");
        assert!(read(&pages, 8192, 4096).is_err(), "a page in another's place");
        pages.set_len(4 * 4096).expect("set");
        assert!(read(&pages, 3 * 4096, 4096).is_err(), "never written");
    }

    proptest! {
        #[test]
        fn as_a_plain_file_would_be(writes in vec((0..6_u64, 0..3_usize, any::<u8>()), 1..20)) {
            let pages = pages();
            pages.set_len(9 * 4096).expect("set");
            pages.write(4096, &[0; 8 * 4096]).expect("written");
            let mut model = vec![0; 9 * 4096];
            for (page, count, byte) in writes {
                // The first page takes what fits its header, the others whole pages and parts of one.
                let (offset, length) = match (page, count) {
                    (0, _) => (8 * count, 300),
                    (_, 0) => (page as usize * 4096 + 100, 700),
                    _ => (page as usize * 4096, count * 4096),
                };
                model[offset..offset + length].fill(byte);
                pages.write(offset as u64, &vec![byte; length]).expect("written");
            }
            prop_assert_eq!(read(&pages, 0, model.len()).expect("sound"), model);
        }
    }
}
