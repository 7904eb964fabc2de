//! Content on the disk, by hash: written by cacache, and read from where that puts it.
//!
//! cacache writes beside and renames, and syncs nothing: [`Contents::sync`] does, before the index names a file. A file
//! that the index names is never written again; a [`Claim`] keeps one that it is about to name from being removed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{self, SHA256};
use parking_lot::{Mutex, RwLock};

use super::trouble::Faults;

/// What a file takes of a disk comes in multiples of this, on nearly all of them.
const BLOCK: u64 = 4096;

/// With more files, the whole file system is synced in one go.
const SYNCED_SINGLY_MAX: usize = 8;

/// SHA-256 of the bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ContentId([u8; 32]);

impl ContentId {
    /// Where there is no file.
    pub(super) const NONE: Self = Self([0; 32]);

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&digest::digest(&SHA256, bytes))
    }

    pub(super) fn from_digest(digest: &digest::Digest) -> Self {
        Self(*digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
    }

    /// Where its file is, below the directory of all content.
    fn path(&self) -> PathBuf {
        let text = self.to_string();
        [&text[..2], &text[2..4], &text[4..]].iter().collect()
    }

    /// The content of a path below that directory.
    fn from_path(path: &Path) -> Option<Self> {
        let text: String = path.iter().map(|part| part.to_str().unwrap_or("?")).collect();
        let key: crate::object::key::Key = text.parse().ok()?;
        let id = Self(*key.as_bytes());
        // Names in capitals are not of our making.
        (id.path() == path).then_some(id)
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// What a file of so many bytes takes of the disk.
pub(super) const fn disk_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// What a file of so many bytes takes of the disk, in blocks.
pub(super) fn blocks(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX)
}

/// Why content cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("there is no file")]
    Missing,
    #[error("the file has another length")]
    Length,
    #[error("the file has other bytes")]
    Bytes,
    /// Another reader has told so already.
    #[error("the file has proved wrong")]
    Condemned,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// All content.
#[derive(Debug)]
pub(super) struct Contents {
    root: PathBuf,
    claims: Mutex<HashMap<ContentId, usize>>,
    /// Content that proved wrong and is about to be removed: nobody reads it meanwhile.
    condemned: RwLock<HashSet<ContentId>>,
    pub(super) faults: Arc<Faults>,
}

/// Content that is about to be named by the index: it is not removed meanwhile.
#[derive(Debug)]
pub(super) struct Claim {
    contents: Arc<Contents>,
    id: ContentId,
}

/// Content on its way to the disk, piece by piece. Dropped before it is done, it leaves nothing.
pub(super) struct Writing {
    writer: cacache::SyncWriter,
    hash: digest::Context,
    bytes: u64,
    faults: Arc<Faults>,
}

impl Contents {
    pub(super) fn new(root: &Path, faults: Arc<Faults>) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), claims: Mutex::default(), condemned: RwLock::default(), faults })
    }

    /// Lets nobody read the file of `id` from now on. Whether it was readable before.
    pub(super) fn condemn(&self, id: ContentId) -> bool {
        self.condemned.write().insert(id)
    }

    /// The file of `id` is gone, or may be tried again.
    pub(super) fn acquit(&self, id: ContentId) {
        self.condemned.write().remove(&id);
    }

    /// Keeps the file of `id` from being removed.
    pub(super) fn claim(self: &Arc<Self>, id: ContentId) -> Claim {
        *self.claims.lock().entry(id).or_default() += 1;
        Claim { contents: Arc::clone(self), id }
    }

    /// Starts a file.
    pub(super) fn start(&self) -> io::Result<Writing> {
        self.faults.write()?;
        let writer = cacache::WriteOpts::new().open_hash_sync(&self.root).map_err(io_error)?;
        Ok(Writing { writer, hash: digest::Context::new(&SHA256), bytes: 0, faults: Arc::clone(&self.faults) })
    }

    /// Writes the file of `id`, which is made of these bytes.
    pub(super) fn write(&self, id: ContentId, bytes: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        let mut writer = cacache::WriteOpts::new().open_hash_sync(&self.root).map_err(io_error)?;
        writer.write_all(bytes)?;
        writer.commit().map_err(io_error)?;
        self.length(id)?.filter(|length| *length == bytes.len() as u64).map(drop).ok_or_else(misplaced)
    }

    /// Makes these files last, and the directories that name them.
    pub(super) fn sync(&self, ids: &[ContentId]) -> io::Result<()> {
        self.faults.write()?;
        if ids.len() > SYNCED_SINGLY_MAX && self.sync_all()? {
            return Ok(());
        }
        let mut directories = BTreeSet::new();
        for id in ids {
            let path = self.path(*id);
            File::open(&path)?.sync_all()?;
            directories.extend(path.ancestors().skip(1).take(4).map(Path::to_owned));
        }
        directories.iter().try_for_each(|path| File::open(path)?.sync_all())
    }

    /// Makes all that was written to this file system last; `false` where there is no such call.
    #[cfg(target_os = "linux")]
    fn sync_all(&self) -> io::Result<bool> {
        rustix::fs::syncfs(File::open(&self.root)?)?;
        Ok(true)
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only Linux has it")]
    fn sync_all(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// The file of `id`, if it has that length.
    pub(super) fn open(&self, id: ContentId, bytes: u64) -> Result<File, Unreadable> {
        self.faults.read()?;
        if self.condemned.read().contains(&id) {
            return Err(Unreadable::Condemned);
        }
        let file = File::open(self.path(id)).map_err(missing)?;
        if file.metadata()?.len() != bytes {
            return Err(Unreadable::Length);
        }
        Ok(file)
    }

    /// All bytes of the file of `id`, if they are so many.
    pub(super) fn read(&self, id: ContentId, bytes: u64) -> Result<Vec<u8>, Unreadable> {
        let length = usize::try_from(bytes).map_err(|_| Unreadable::Length)?;
        let mut file = self.open(id, bytes)?;
        let mut content = vec![0; length];
        file.read_exact(&mut content).map_err(cut_short)?;
        Ok(content)
    }

    /// Length of the file of `id`, if there is one.
    pub(super) fn length(&self, id: ContentId) -> io::Result<Option<u64>> {
        match fs::metadata(self.path(id)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the file of `id`, unless it is claimed. Whether it did.
    pub(super) fn remove(&self, id: ContentId) -> io::Result<bool> {
        // Held over the removal: who claims it afterwards finds it gone.
        let claims = self.claims.lock();
        if claims.contains_key(&id) {
            return Ok(false);
        }
        match fs::remove_file(self.path(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All files whose names start with that byte, and what lies among them that is none.
    pub(super) fn list(&self, first: u8) -> io::Result<(Vec<ContentId>, Vec<PathBuf>)> {
        let (mut ids, mut strangers) = (Vec::new(), Vec::new());
        let root = self.directory();
        for directory in entries(&root.join(format!("{first:02x}")))? {
            for path in entries(&directory).unwrap_or_else(|_| vec![directory]) {
                match path.strip_prefix(&root).ok().and_then(ContentId::from_path) {
                    Some(id) => ids.push(id),
                    None => strangers.push(path),
                }
            }
        }
        Ok((ids, strangers))
    }

    /// Removes files without asking anybody, until at least so many bytes are gone: the way out of a disk so full that
    /// the index cannot be changed. Returns the bytes.
    pub(super) fn sacrifice(&self, bytes: u64) -> io::Result<u64> {
        let mut gone = 0;
        for first in 0..=u8::MAX {
            for id in self.list(first)?.0 {
                let length = self.length(id)?.unwrap_or(0);
                if self.remove(id)? {
                    gone += disk_bytes(length);
                }
                if gone >= bytes {
                    return Ok(gone);
                }
            }
        }
        Ok(gone)
    }

    /// Removes what was being written when the last process ended.
    pub(super) fn forget_unfinished(&self) -> io::Result<()> {
        entries(&self.root.join("tmp"))?.iter().try_for_each(fs::remove_file)
    }

    pub(super) fn path(&self, id: ContentId) -> PathBuf {
        self.directory().join(id.path())
    }

    fn directory(&self) -> PathBuf {
        self.root.join("content-v2/sha256")
    }
}

impl Writing {
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        self.writer.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// What its file will be called.
    pub(super) fn id(&self) -> ContentId {
        ContentId::from_digest(&self.hash.clone().finish())
    }

    /// Puts the file in its place, and makes it last.
    pub(super) fn finish(self, contents: &Contents) -> io::Result<()> {
        let id = self.id();
        self.writer.commit().map_err(io_error)?;
        contents.sync(&[id])?;
        contents.length(id)?.filter(|length| *length == self.bytes).map(drop).ok_or_else(misplaced)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.contents.claims.lock();
        if let Some(count) = claims.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&self.id);
            }
        }
    }
}

/// What is in a directory; nothing, where it is missing.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn missing(error: io::Error) -> Unreadable {
    if error.kind() == io::ErrorKind::NotFound { Unreadable::Missing } else { Unreadable::Io(error) }
}

fn cut_short(error: io::Error) -> Unreadable {
    if error.kind() == io::ErrorKind::UnexpectedEof { Unreadable::Length } else { Unreadable::Io(error) }
}

fn io_error(error: cacache::Error) -> io::Error {
    match error {
        cacache::Error::IoError(source, _) => source,
        other => io::Error::other(other.to_string()),
    }
}

fn misplaced() -> io::Error {
    io::Error::other("content was not found where it had been written to")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> (Arc<Contents>, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        (Contents::new(directory.path(), Arc::default()), directory)
    }

    fn write(contents: &Contents, bytes: &[u8]) -> ContentId {
        let id = ContentId::of(bytes);
        contents.write(id, bytes).expect("room");
        id
    }

    #[test]
    fn found_where_it_is_expected() {
        let (contents, _directory) = contents();
        let id = write(&contents, b"content");
        contents.sync(&[id]).expect("synced");
        contents.sync(&[id; SYNCED_SINGLY_MAX + 1]).expect("synced");
        assert_eq!(contents.read(id, 7).expect("there"), b"content");
        assert!(matches!(contents.read(id, 6), Err(Unreadable::Length)));
        assert!(matches!(contents.read(ContentId::of(b"other"), 5), Err(Unreadable::Missing)));
        let listed: Vec<_> = (0..=u8::MAX).flat_map(|first| contents.list(first).expect("readable").0).collect();
        assert_eq!(listed, [id]);
    }

    #[test]
    fn what_is_claimed_stays() {
        let (contents, _directory) = contents();
        let id = write(&contents, b"content");
        let claims = [contents.claim(id), contents.claim(id)];
        let [one, other] = claims;
        drop(one);
        assert!(!contents.remove(id).expect("no error"));
        drop(other);
        assert!(contents.remove(id).expect("no error"));
        assert!(!contents.remove(id).expect("gone already"));
    }

    #[test]
    fn what_proved_wrong_is_not_read() {
        let (contents, _directory) = contents();
        let id = write(&contents, b"content");
        assert!(contents.condemn(id) && !contents.condemn(id));
        assert!(matches!(contents.read(id, 7), Err(Unreadable::Condemned)));
        contents.acquit(id);
        assert!(contents.read(id, 7).is_ok());
    }

    #[test]
    fn in_pieces() {
        let (contents, directory) = contents();
        let mut writing = contents.start().expect("room");
        writing.push(b"con").expect("room");
        writing.push(b"tent").expect("room");
        assert_eq!(writing.id(), ContentId::of(b"content"));
        writing.finish(&contents).expect("room");
        assert_eq!(contents.read(ContentId::of(b"content"), 7).expect("there"), b"content");

        let mut abandoned = contents.start().expect("room");
        abandoned.push(b"abandoned").expect("room");
        let unfinished = || entries(&directory.path().join("tmp")).expect("readable").len();
        assert_eq!(unfinished(), 1);
        drop(abandoned);
        assert_eq!(unfinished(), 0);
        fs::write(directory.path().join("tmp/left"), b"by a crash").expect("written");
        contents.forget_unfinished().expect("removed");
        assert_eq!(unfinished(), 0);
    }

    #[test]
    fn strangers_are_told() {
        let (contents, _directory) = contents();
        let id = write(&contents, b"content");
        let path = contents.path(id);
        fs::write(path.with_file_name("stranger"), b"").expect("written");
        let (ids, strangers) = contents.list(id.as_bytes()[0]).expect("readable");
        assert_eq!((ids.len(), strangers.len()), (1, 1));
    }

    #[test]
    fn room_is_made_of_anything() {
        let (contents, _directory) = contents();
        let ids = [b"one", b"two"].map(|bytes| write(&contents, bytes));
        assert_eq!(contents.sacrifice(1).expect("removed"), BLOCK);
        let left = ids.iter().filter(|id| contents.length(**id).expect("readable").is_some()).count();
        assert_eq!(left, 1);
    }
}
