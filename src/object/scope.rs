//! What a purge can name, and the position in the purge log that an entry is compared with.
//!
//! A [`Scope`] is 64 bits of BLAKE3 over its kind and value. Sixty-four are enough here, where they would not be for a
//! key: two scopes that collide are purged together, which costs a miss and never serves anything wrong. Entries carry
//! half a dozen of them each, so the shorter form saves some fifty bytes an entry.

use std::sync::LazyLock;

use super::key::{Key, KeyBuilder};

/// One thing a purge can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(u64);

/// Path segments that have a scope of their own; a purge of a deeper prefix falls on the last of these.
pub const PREFIX_SEGMENTS_MAX: usize = 16;

impl Scope {
    /// Everything.
    pub fn everything() -> Self {
        static EVERYTHING: LazyLock<Scope> = LazyLock::new(|| Scope::of("everything", &[]));
        *EVERYTHING
    }

    /// All of one site (an authority, or a route that answers any authority alike).
    pub fn site(site: &str) -> Self {
        Self::of("site", &[site.as_bytes()])
    }

    /// One path of a site and all below it, at a segment boundary: `/a/b` covers `/a/b`, `/a/b/` and `/a/b/c`, not
    /// `/a/bc`.
    pub fn prefix(site: &str, path: &str) -> Self {
        match truncated(path) {
            "" => Self::site(site),
            path => Self::of("prefix", &[site.as_bytes(), path.as_bytes()]),
        }
    }

    /// One URL, whatever else its keys hold: all its variants, partitions and request bodies.
    pub fn url(site: &str, path: &str, query: Option<&str>) -> Self {
        Self::of("url", &[site.as_bytes(), path.as_bytes(), query.unwrap_or_default().as_bytes()])
    }

    /// One tag of one partition; an empty partition means all of them.
    pub fn tag(partition: &[u8], tag: &str) -> Self {
        Self::of("tag", &[partition, tag.as_bytes()])
    }

    /// One primary key, with all its variants.
    pub fn key(key: &Key) -> Self {
        // A hash already, of which the first half is what tables go by.
        let (_, second) = key.as_bytes().split_at(8);
        Self(second.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// From the 64 bits of [`Scope::bits`].
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The scopes of every path prefix of `path` but `/`, which is the [`site`](Self::site).
    pub fn prefixes<'a>(site: &'a str, path: &'a str) -> impl Iterator<Item = Self> + 'a {
        boundaries(path).skip(1).map(move |end| Self::of("prefix", &[site.as_bytes(), &path.as_bytes()[..end]]))
    }

    fn of(kind: &str, fields: &[&[u8]]) -> Self {
        let mut builder = KeyBuilder::new(kind);
        for field in fields {
            builder.field(field);
        }
        Self(builder.finish().prefix())
    }
}

/// Ends of the prefixes of `path`: 0 for the root, then the end of each segment, without trailing slashes.
fn boundaries(path: &str) -> impl Iterator<Item = usize> + '_ {
    let bytes = path.as_bytes();
    let ends =
        (1..=bytes.len()).filter(move |&end| bytes[end - 1] != b'/' && (end == bytes.len() || bytes[end] == b'/'));
    std::iter::once(0).chain(ends.take(PREFIX_SEGMENTS_MAX))
}

fn truncated(path: &str) -> &str {
    &path[..boundaries(path).last().unwrap_or(0)]
}

/// A position in the purge log. Positions only grow; an entry carries the one its fill started from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// Before the first purge.
    pub const START: Self = Self(0);

    /// From the number of [`Position::number`].
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// As a number: the epoch in the upper 16 bits, the sequence number in the lower 48.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A position in the purge log that all nodes of a fleet share. It means something within one life of that log only:
/// where Redis lost it, the next one has another number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FleetPosition {
    /// Number of the log's life, drawn at random; 0: of none.
    pub life: u64,
    /// Position in it.
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(prefix: &str, path: &str) -> bool {
        let mut scopes = Scope::prefixes("shop", path).chain([Scope::site("shop")]);
        scopes.any(|scope| scope == Scope::prefix("shop", prefix))
    }

    #[test]
    fn prefixes_end_at_segments() {
        assert!(covers("/a/b", "/a/b"));
        assert!(covers("/a/b", "/a/b/"));
        assert!(covers("/a/b", "/a/b/c"));
        assert!(covers("/a/b/", "/a/b/c"));
        assert!(!covers("/a/b", "/a/bc"));
        assert!(covers("/", "/a"));
        assert!(covers("", "/"));
        assert!(!covers("/a", "/"));
    }

    #[test]
    fn a_prefix_too_deep_falls_on_the_deepest_kept() {
        let deep = "/x".repeat(PREFIX_SEGMENTS_MAX + 5);
        assert!(covers(&deep, &deep));
        assert!(covers(&format!("{deep}/y"), &deep));
        assert_eq!(Scope::prefixes("shop", &deep).count(), PREFIX_SEGMENTS_MAX);
    }
}
