//! Files of memory as Linux has them: `memfd_create`, sealed.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
    process::{Resource, getrlimit},
};

use super::Place;
use crate::object::content::Content;

/// One file, and its pages as this process sees them.
struct Sealed {
    map: Mmap,
    file: File,
    _place: Place,
}

/// The pages of a file, as what keeps them alive.
struct Pages(Arc<Sealed>);

/// Descriptors that this process may have.
pub(super) fn descriptors() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A copy of `content`.
pub(super) fn filed(content: &[u8], place: Place) -> io::Result<Content> {
    let mut file = File::from(created()?);
    file.write_all(content)?;
    let sealed = Arc::new(Sealed { map: sealed(&file)?, file, _place: place });
    Ok(Content::filed(Bytes::from_owner(Pages(Arc::clone(&sealed))), sealed))
}

fn created() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(c"larder", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 there was no such flag.
        Err(Errno::INVAL) => Ok(memfd_create(c"larder", flags)?),
        created => Ok(created?),
    }
}

/// Seals the file for good and maps it. Privately: a shared mapping counts as one that might write, which older kernels
/// do not have of a sealed file. Nobody writes, so the pages are the file's own either way.
#[expect(unsafe_code, reason = "a mapping of a file is unsafe, because files in general can change under it")]
fn sealed(file: &File) -> io::Result<Mmap> {
    fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    // SAFETY: the file is sealed against every change of its content and of its length, and the seals cannot be taken
    // off: what is mapped stays as it is as long as the mapping is there.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}
