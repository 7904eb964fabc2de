//! Long contents lie in anonymous files of memory, so that the kernel can send their pages as they are (`sendfile`)
//! instead of copying them for every client.
//!
//! A file is written once and then sealed: neither this process nor another can change it any more. Everybody who does
//! not send it as a file reads the same pages as ordinary [`Bytes`](bytes::Bytes). There is a bounded number of them;
//! where that is reached, or the system has no such files, content stays where it is and nothing else is different.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::object::content::Content;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use self::linux as system;

/// Elsewhere there are none.
#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) const fn descriptors() -> usize {
        0
    }

    pub(super) fn filed(_: &[u8], _: super::Place) -> std::io::Result<crate::object::content::Content> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Content from this length on goes to a file. Below, sending from a file costs as much as copying, or more
/// (docs/ARCHITECTURE.md, "Choices").
const LONG: usize = 1 << 20;

/// The part of the descriptors that a process may have which these files may take: connections need the others.
const SHARE_OF_DESCRIPTORS: usize = 4;

/// Each file is a mapping as well; the usual limit of a process is twice as many (`vm.max_map_count`).
const MAPPINGS_MAX: usize = 32 * 1024;

/// The files. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Files {
    open: Arc<AtomicUsize>,
    max: usize,
    /// Held while one is written: for that time its content is in memory twice.
    turn: Arc<Mutex<()>>,
}

impl Files {
    /// At most `max` files, and never more than a share of what the process may open.
    pub fn new(max: usize) -> Self {
        let max = max.min(system::descriptors() / SHARE_OF_DESCRIPTORS).min(MAPPINGS_MAX);
        Self { open: Arc::default(), max, turn: Arc::default() }
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Whether content of that length may go to a file now.
    pub fn takes(&self, length: usize) -> bool {
        length >= LONG && self.open() < self.max
    }

    /// A copy of `content` in a file; `None` where it is short, there can be no further file, or another is just being
    /// written.
    pub fn filed(&self, content: &[u8]) -> Option<Content> {
        if !self.takes(content.len()) {
            return None;
        }
        let _turn = self.turn.try_lock()?;
        system::filed(content, self.place()?).ok()
    }

    fn place(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.open));
        (self.open.fetch_add(1, Relaxed) < self.max).then_some(place)
    }
}

/// One of the files there may be; given back when it is dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn long() -> Vec<u8> {
        (0..LONG + 333).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn what_is_short_stays() {
        let files = Files::new(9);
        assert!(files.filed(&[]).is_none());
        assert!(files.filed(&vec![1; LONG - 1]).is_none());
        assert_eq!(files.open(), 0);
        assert!(files.filed(&vec![1; LONG]).is_some_and(|content| content.is_filed()));
    }

    #[test]
    fn one_at_a_time() {
        let files = Files::new(9);
        let turn = files.turn.lock();
        assert!(files.filed(&long()).is_none());
        drop(turn);
        assert!(files.filed(&long()).is_some());
    }

    #[test]
    fn bytes_and_file_hold_the_content() {
        let content = Files::new(1).filed(&long()).expect("a file");
        let expected = long();
        assert_eq!(content.bytes(), &expected);
        let filed = content.file().expect("a file");
        assert_eq!(filed.length, expected.len() as u64);
        let mut read = vec![0; expected.len() + 1];
        let count = rustix::io::pread(filed.file.as_fd(), &mut read, 0).expect("readable");
        assert_eq!(read[..count], expected);
    }

    #[test]
    fn nobody_can_change_it() {
        let content = Files::new(1).filed(&long()).expect("a file");
        let filed = content.file().expect("a file");
        let file = filed.file.as_fd();
        for length in [0, filed.length - 1, filed.length + 1] {
            rustix::fs::ftruncate(file, length).expect_err("sealed");
        }
        rustix::io::pwrite(file, b"x", 0).expect_err("sealed");
        rustix::io::pwrite(file, b"x", filed.length).expect_err("sealed");
        rustix::fs::fcntl_add_seals(file, rustix::fs::SealFlags::empty()).expect_err("sealed");
    }

    /// Bytes and file are there as long as one of them is wanted, and then the place is free.
    #[test]
    fn places_are_bounded_and_come_back() {
        let files = Files::new(2);
        let (first, second) = (files.filed(&long()).expect("room"), files.filed(&long()).expect("room"));
        assert!(files.filed(&long()).is_none());
        assert_eq!(files.open(), 2);
        let bytes = first.bytes().slice(1000..);
        drop(first);
        assert_eq!(files.open(), 2);
        assert_eq!(bytes, long()[1000..]);
        drop(bytes);
        assert_eq!(files.open(), 1);
        let filed = second.file();
        drop(second);
        assert_eq!(files.open(), 1);
        drop(filed);
        assert_eq!(files.open(), 0);
        assert!(files.filed(&long()).is_some());
    }

    #[test]
    fn never_more_than_a_share_of_descriptors() {
        assert_eq!(Files::new(usize::MAX).max, (system::descriptors() / SHARE_OF_DESCRIPTORS).min(MAPPINGS_MAX));
        assert!(Files::new(0).filed(&long()).is_none());
    }
}
