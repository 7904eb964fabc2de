//! A stored response as every tier holds it.
//!
//! There are millions of them, most of them small, so what is kept about a response is packed: times in six bytes, what
//! is rare behind a pointer, and scopes, URL and tags as bytes in front of the content, in the same piece of memory. What
//! the head says is read from the head. [`Unpacked`] is the same with every part in the open.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::{
    allocation::{allocated, shared},
    freshness::{Flags, Freshness},
    head::Head,
    key::Key,
    range::ContentRange,
    scope::{Position, Scope},
    time::{Compact, Timestamp},
    validators::Validators,
};

/// Longest content that is copied behind the text of its entry; more is left where it is.
const COPIED_MAX: usize = 4096;

/// What `Bytes` keeps apart from the bytes: where they are, how many, who shares them.
const COUNTED: usize = allocated(3 * size_of::<usize>());

/// A stored response: complete, or one part of a representation.
pub struct Entry {
    /// Identity: the primary key, or the variant's (RFC 9111 section 4.1).
    pub key: Key,
    /// Position of the purge log before the request for it left.
    pub stamp: Position,
    /// Highest purge position it was found untouched at, as a number; spares most hits the look-up of scopes.
    pub checked: AtomicU64,
    /// Status and end-to-end fields.
    pub head: Head,
    /// The text, and behind it the content unless that is long.
    block: Box<[u8]>,
    rare: Option<Box<Rare>>,
    /// Length of the text in the block.
    text: u32,
    /// Number of scopes in the text.
    scopes: u32,
    /// Times it was served.
    pub hits: AtomicU32,
    /// Milliseconds the origin took from request to complete response: what regenerating it costs.
    pub fill_millis: u32,
    flags: Flags,
    born: Compact,
    fresh_until: Compact,
    swr_until: Compact,
    sie_until: Compact,
    keep_until: Compact,
}

/// What most entries do without.
struct Rare {
    primary: Key,
    part: Option<ContentRange>,
    long: Option<Long>,
}

/// Content too long to be copied.
enum Long {
    Body(Bytes),
    Elsewhere(Elsewhere),
}

/// Content of an entry, as what keeps it alive.
struct Content(Arc<Entry>);

/// Content that does not lie in memory: how long it is, and what its tier finds it by.
#[derive(Clone)]
pub struct Elsewhere {
    length: u64,
    handle: Arc<dyn Any + Send + Sync>,
}

/// An entry as it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// See [`Entry::key`].
    pub key: Key,
    /// The key without `Vary`.
    pub primary: Key,
    /// See [`Entry::stamp`].
    pub stamp: Position,
    /// What purges can reach it by. Everything is one of them, named or not.
    pub scopes: Arc<[Scope]>,
    /// URL as a client names it, to fetch it again and to explain it.
    pub url: Box<str>,
    /// Tags, separated by blanks: their fields may be hidden from clients, and so from the head.
    pub tags: Box<str>,
    /// See [`Entry::head`].
    pub head: Head,
    /// Content, complete; empty where it lies elsewhere.
    pub body: Bytes,
    /// Content that does not lie in memory.
    pub elsewhere: Option<Elsewhere>,
    /// Which part of the representation `body` is; `None`: all of it.
    pub part: Option<ContentRange>,
    /// Deadlines.
    pub freshness: Freshness,
    /// When it was stored.
    pub stored: Timestamp,
    /// See [`Entry::fill_millis`].
    pub fill_millis: u32,
    /// See [`Entry::hits`].
    pub hits: u32,
}

// === impl Unpacked ===

impl Unpacked {
    /// As a tier keeps it.
    pub fn pack(self) -> Entry {
        let copied = self.body.len() <= COPIED_MAX;
        let (mut block, scopes) = self.text(if copied { self.body.len() } else { 0 });
        let text = short(block.len());
        let long = match self.elsewhere {
            Some(elsewhere) => Some(Long::Elsewhere(elsewhere)),
            None if copied => {
                block.extend_from_slice(&self.body);
                None
            }
            None => Some(Long::Body(self.body)),
        };
        let plain = long.is_none() && self.part.is_none() && self.primary == self.key;
        let rare = || Box::new(Rare { primary: self.primary, part: self.part, long });
        Entry {
            key: self.key,
            stamp: self.stamp,
            checked: Position::START.number().into(),
            head: self.head,
            block: block.into(),
            rare: (!plain).then(rare),
            text,
            scopes,
            hits: self.hits.into(),
            fill_millis: self.fill_millis,
            flags: self.freshness.flags,
            born: self.freshness.born.into(),
            fresh_until: self.freshness.fresh_until.into(),
            swr_until: self.freshness.swr_until.into(),
            sie_until: self.freshness.sie_until.into(),
            keep_until: self.freshness.keep_until.into(),
        }
    }

    /// What stands in front of the content, with room for so much of that; and the number of scopes in it.
    fn text(&self, room: usize) -> (Vec<u8>, u32) {
        let named = self.scopes.iter().filter(|scope| **scope != Scope::everything());
        let scopes = named.clone().count();
        // Exactly: allocators do not move what shrinks a little.
        let length = Text::FIXED + 8 * scopes + self.url.len() + self.tags.len();
        let mut text = Vec::with_capacity(length + room);
        text.extend_from_slice(Compact::from(self.stored).as_bytes());
        text.extend_from_slice(&short(self.url.len()).to_le_bytes());
        named.for_each(|scope| text.extend_from_slice(&scope.bits().to_le_bytes()));
        text.extend_from_slice(self.url.as_bytes());
        text.extend_from_slice(self.tags.as_bytes());
        (text, short(scopes))
    }
}

// === impl Entry ===

impl Entry {
    /// The key without `Vary`.
    pub fn primary(&self) -> Key {
        self.rare.as_ref().map_or(self.key, |rare| rare.primary)
    }

    /// What purges can reach it by, in the order they were given; everything last.
    pub fn scopes(&self) -> Vec<Scope> {
        self.text().scopes()
    }

    /// URL as a client names it.
    pub fn url(&self) -> &str {
        self.text().url()
    }

    /// Tags, separated by blanks.
    pub fn tags(&self) -> &str {
        self.text().tags()
    }

    /// Content, complete; nothing where it lies elsewhere.
    pub fn content(&self) -> &[u8] {
        match self.long() {
            Some(Long::Body(body)) => body,
            Some(Long::Elsewhere(_)) => &[],
            None => &self.block[self.text as usize..],
        }
    }

    /// Content, to be sent: shared, not copied; nothing where it lies elsewhere.
    pub fn body(self: &Arc<Self>) -> Bytes {
        match self.long() {
            Some(Long::Body(body)) => body.clone(),
            Some(Long::Elsewhere(_)) => Bytes::new(),
            None => Bytes::from_owner(Content(Arc::clone(self))),
        }
    }

    /// Bytes of the content, wherever it lies.
    pub fn length(&self) -> u64 {
        match self.long() {
            Some(Long::Elsewhere(elsewhere)) => elsewhere.length,
            _ => self.content().len() as u64,
        }
    }

    /// The content, where it does not lie in memory.
    pub fn elsewhere(&self) -> Option<&Elsewhere> {
        match self.long() {
            Some(Long::Elsewhere(elsewhere)) => Some(elsewhere),
            _ => None,
        }
    }

    fn long(&self) -> Option<&Long> {
        self.rare.as_ref().and_then(|rare| rare.long.as_ref())
    }

    /// Which part of the representation the content is; `None`: all of it.
    pub fn part(&self) -> Option<ContentRange> {
        self.rare.as_ref().and_then(|rare| rare.part)
    }

    /// Deadlines.
    pub fn freshness(&self) -> Freshness {
        Freshness {
            born: self.born.into(),
            fresh_until: self.fresh_until.into(),
            swr_until: self.swr_until.into(),
            sie_until: self.sie_until.into(),
            keep_until: self.keep_until.into(),
            flags: self.flags,
        }
    }

    /// Those of the head.
    pub fn validators(&self) -> Validators {
        Validators::of_head(&self.head)
    }

    /// When it was stored.
    pub fn stored(&self) -> Timestamp {
        self.text().stored()
    }

    /// The same content under a new head.
    pub fn under(self: &Arc<Self>, head: Head) -> Unpacked {
        Unpacked {
            key: self.key,
            primary: self.primary(),
            stamp: self.stamp,
            scopes: self.scopes().into(),
            url: self.url().into(),
            tags: self.tags().into(),
            head,
            body: self.body(),
            elsewhere: self.elsewhere().cloned(),
            part: self.part(),
            freshness: self.freshness(),
            stored: self.stored(),
            fill_millis: self.fill_millis,
            hits: self.hits.load(Relaxed),
        }
    }

    /// Bytes of memory it takes in L1, without what the tier itself keeps of it.
    pub fn weight(&self) -> usize {
        let long = |long: &Long| match long {
            Long::Body(body) => allocated(body.len()) + COUNTED,
            Long::Elsewhere(_) => 0,
        };
        let rare = |rare: &Rare| allocated(size_of::<Rare>()) + rare.long.as_ref().map_or(0, long);
        shared(size_of::<Self>())
            + allocated(self.head.weight())
            + allocated(self.block.len())
            + self.rare.as_deref().map_or(0, rare)
    }

    /// Notes that it was served; how often it has been.
    pub fn served(&self) -> u32 {
        self.hits.fetch_add(1, Relaxed).wrapping_add(1)
    }

    fn text(&self) -> Text<'_> {
        Text { text: &self.block[..self.text as usize], scopes: self.scopes as usize }
    }
}

impl Elsewhere {
    /// Content of that length; `handle` means something to the tier that has it.
    pub fn new(length: u64, handle: Arc<dyn Any + Send + Sync>) -> Self {
        Self { length, handle }
    }

    /// What it is found by, if it is of that kind.
    pub fn handle<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.handle).downcast().ok()
    }
}

impl PartialEq for Elsewhere {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && Arc::ptr_eq(&self.handle, &other.handle)
    }
}

impl Eq for Elsewhere {}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elsewhere").field("length", &self.length).finish_non_exhaustive()
    }
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        self.0.content()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("status", &self.head.status)
            .field("body_bytes", &self.length())
            .field("freshness", &self.freshness())
            .finish_non_exhaustive()
    }
}

// === impl Text ===

/// What stands in front of the content: when it was stored, the length of the URL (four bytes); scopes, URL, tags.
#[derive(Clone, Copy)]
struct Text<'a> {
    text: &'a [u8],
    scopes: usize,
}

impl<'a> Text<'a> {
    /// Time and length.
    const FIXED: usize = 6 + 4;

    fn stored(self) -> Timestamp {
        self.text.first_chunk().map_or(Timestamp::EPOCH, |bytes| Compact::from_bytes(*bytes).into())
    }

    fn scopes(self) -> Vec<Scope> {
        let (named, _) = self.text[Self::FIXED..self.url_start()].as_chunks();
        let named = named.iter().map(|bits| Scope::from_bits(u64::from_le_bytes(*bits)));
        named.chain([Scope::everything()]).collect()
    }

    fn url(self) -> &'a str {
        readable(&self.text[self.url_start()..self.url_end()])
    }

    fn tags(self) -> &'a str {
        readable(&self.text[self.url_end()..])
    }

    fn url_start(self) -> usize {
        Self::FIXED + 8 * self.scopes
    }

    fn url_end(self) -> usize {
        let length = self.text[..Self::FIXED].last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        self.url_start() + length as usize
    }
}

/// A length of what came in a head: nothing there comes near the limit of four bytes.
fn short(length: usize) -> u32 {
    u32::try_from(length).expect("heads are bounded, and what they hold with them")
}

fn readable(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("written from a string, and cut where it ended")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{
        super::{fields::tests::map, testing},
        *,
    };

    const SITE: &str = "http://shop.example";

    fn plain(body_bytes: usize) -> Unpacked {
        let key = Key::from_bytes([7; 32]);
        let path = "/items/12345";
        let mut scopes = vec![Scope::url(SITE, path, None), Scope::everything(), Scope::site(SITE), Scope::key(&key)];
        scopes.extend(Scope::prefixes(SITE, path));
        let body = Bytes::from(vec![b'x'; body_bytes]);
        Unpacked { url: format!("{SITE}{path}").into(), body, ..testing::unpacked(key, Position::START, &scopes) }
    }

    /// With its place in the engine, some fifty bytes, the bookkeeping of a plain entry is not above three hundred.
    #[test]
    fn a_plain_entry_is_small() {
        assert!(shared(size_of::<Entry>()) <= 160, "{} bytes", size_of::<Entry>());
        for body_bytes in [0, 256, 1024, COPIED_MAX] {
            let entry = plain(body_bytes).pack();
            assert!(entry.rare.is_none());
            let text = entry.block.len() - body_bytes;
            assert!(shared(size_of::<Entry>()) + text <= 250, "{text} bytes of text");
            assert_eq!(entry.weight(), shared(size_of::<Entry>()) + allocated(text + body_bytes));
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        for body_bytes in [0, 10, COPIED_MAX, COPIED_MAX + 1] {
            for (part, primary) in [(None, [7; 32]), (Some(ContentRange::new(&(0..=9), 20)), [8; 32])] {
                let (primary, stored) = (Key::from_bytes(primary), Timestamp::from_millis(1_764_583_200_123));
                let tags = "blue red".into();
                let made = Unpacked { part, primary, tags, stored, hits: 3, ..plain(body_bytes) };
                let entry = Arc::new(made.clone().pack());
                assert_eq!(entry.body(), made.body);
                let mut read = entry.under(made.head.clone());
                // All are there, in another order.
                let mut scopes = [read.scopes.to_vec(), made.scopes.to_vec()];
                scopes.iter_mut().for_each(|scopes| scopes.sort_unstable());
                assert_eq!(scopes[0], scopes[1]);
                read.scopes = made.scopes.clone();
                assert_eq!(read, made);
            }
        }
    }

    #[test]
    fn content_outlives_its_place() {
        let entry = Arc::new(plain(100).pack());
        let body = entry.body();
        drop(entry);
        assert_eq!(body, vec![b'x'; 100]);
    }

    #[test]
    fn content_may_lie_elsewhere() {
        let elsewhere = Elsewhere::new(5000, Arc::new("shelf 7"));
        let entry = Arc::new(Unpacked { elsewhere: Some(elsewhere.clone()), ..plain(0) }.pack());
        assert_eq!((entry.length(), entry.content(), entry.body().len()), (5000, &b""[..], 0));
        assert_eq!(entry.elsewhere().and_then(Elsewhere::handle::<&str>).as_deref(), Some(&"shelf 7"));
        assert!(entry.elsewhere().and_then(Elsewhere::handle::<u64>).is_none());
        let renewed = Arc::new(entry.under(entry.head.clone()).pack());
        assert_eq!((renewed.length(), renewed.elsewhere()), (5000, Some(&elsewhere)));
        assert_eq!((plain(10).pack().length(), plain(COPIED_MAX + 1).pack().length()), (10, COPIED_MAX as u64 + 1));
    }

    #[test]
    fn everything_is_a_scope_of_all() {
        let entry = testing::entry(Key::from_bytes([7; 32]), Position::START, &[Scope::site(SITE)]);
        assert_eq!(entry.scopes().as_slice(), [Scope::site(SITE), Scope::everything()]);
    }

    #[test]
    fn the_same_content_under_a_new_head() {
        let old = Arc::new(Unpacked { tags: "blue".into(), ..plain(100) }.pack());
        let fields = map(&[("etag", "\"2\"")]);
        let new = Arc::new(old.under(Head::new(StatusCode::OK, &fields)).pack());
        assert_eq!((new.body(), new.url(), new.tags()), (old.body(), old.url(), old.tags()));
        assert_eq!((new.scopes(), new.freshness()), (old.scopes(), old.freshness()));
        assert_eq!(new.validators(), Validators::of(&fields));
    }

    /// The first scope of an entry is that of its URL.
    #[test]
    fn scopes_stay_in_order() {
        let given = [Scope::site("a"), Scope::everything(), Scope::site("b")];
        let entry = Unpacked { scopes: given.into(), ..plain(1) }.pack();
        assert_eq!(entry.scopes()[..], [Scope::site("a"), Scope::site("b"), Scope::everything()]);
    }
}
