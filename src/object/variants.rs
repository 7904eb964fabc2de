//! The record under a primary key whose responses carry `Vary`: which variants there are, and which one a request
//! chooses.
//!
//! Immutable: a change makes a new record, so readers never wait. One URL may answer with different `Vary` lists at
//! different times; each distinct list is tried, and where several match, the variant stored last wins.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE},
};

use super::{
    allocation::{allocated, shared},
    fields::combined,
    head::Head,
    key::Key,
    normalise::Languages,
    time::Timestamp,
    vary::{Comparing, any_language_key, variant_key},
};

/// One stored variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    pub(super) fields: Arc<[HeaderName]>,
    pub(super) key: Key,
    /// The key without Accept-Language, and the response's language, where a request may be served by it.
    pub(super) language: Option<(Key, Box<str>)>,
    pub(super) stored: Timestamp,
}

/// The variants of one primary key, the one stored last first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variants {
    /// Each list of fields once.
    lists: Box<[Arc<[HeaderName]>]>,
    variants: Box<[Variant]>,
}

// === impl Variant ===

impl Variant {
    /// The variant of `primary` that `request` got `response` for, now; `fields` are those of its
    /// [`Vary`](super::vary::Vary).
    pub fn new(
        primary: &Key,
        fields: &[HeaderName],
        request: &HeaderMap,
        response: &Head,
        by: Comparing<'_>,
        now: Timestamp,
    ) -> Self {
        let any_language = any_language_key(primary, fields, request, by);
        Self {
            fields: fields.into(),
            key: variant_key(primary, fields, request, by),
            language: any_language.and_then(|key| Some((key, language(response)?))),
            stored: now,
        }
    }

    /// The key its entry is stored under.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The request fields it was chosen by.
    pub fn fields(&self) -> &[HeaderName] {
        &self.fields
    }

    /// When it was stored.
    pub fn stored(&self) -> Timestamp {
        self.stored
    }

    /// Bytes of memory it takes beside itself.
    /// The same, stored at another time.
    #[must_use]
    pub fn stored_at(self, stored: Timestamp) -> Self {
        Self { stored, ..self }
    }

    fn weight(&self) -> usize {
        self.language.as_ref().map_or(0, |(_, language)| allocated(language.len()))
    }
}

/// The one language of a response, in lower case.
fn language(response: &Head) -> Option<Box<str>> {
    let mut lines = response.get_all(&CONTENT_LANGUAGE);
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let tag = std::str::from_utf8(line).ok()?.trim();
    let is_tag = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_tag.then(|| tag.to_ascii_lowercase().into())
}

// === impl Variants ===

impl Variants {
    /// The key of the variant that may answer `request`.
    ///
    /// Where languages are compared by meaning, a variant that only differs in Accept-Language will do if its language is what the request
    /// prefers.
    pub fn select(&self, primary: &Key, request: &HeaderMap, by: Comparing<'_>) -> Option<Key> {
        let by_fields = |fields: &Arc<[HeaderName]>| {
            let key = variant_key(primary, fields, request, by);
            self.variants.iter().position(|variant| variant.key == key)
        };
        let latest = self.lists.iter().filter_map(by_fields).min();
        latest.or_else(|| self.by_language(primary, request, by)).map(|index| self.variants[index].key)
    }

    fn by_language(&self, primary: &Key, request: &HeaderMap, by: Comparing<'_>) -> Option<usize> {
        if !by.normalise || self.variants.iter().all(|variant| variant.language.is_none()) {
            return None;
        }
        let wanted = Languages::parse(&combined(request, &ACCEPT_LANGUAGE)?)?;
        let of_list = |fields: &Arc<[HeaderName]>| {
            let key = any_language_key(primary, fields, request, by)?;
            self.variants.iter().position(|variant| {
                variant.language.as_ref().is_some_and(|(rest, language)| *rest == key && wanted.prefers(language))
            })
        };
        self.lists.iter().filter_map(of_list).min()
    }

    /// With `variant` in front, in place of the one of the same key; of more than `max`, those stored first go.
    #[must_use]
    pub fn with(&self, mut variant: Variant, max: usize) -> Self {
        if let Some(list) = self.lists.iter().find(|list| **list == variant.fields) {
            variant.fields = Arc::clone(list);
        }
        let others = self.variants.iter().filter(|other| other.key != variant.key);
        let others = others.take(max.saturating_sub(1)).cloned().collect::<Vec<_>>();
        Self::from_latest(std::iter::once(variant).chain(others).collect())
    }

    /// Without the variant of that key.
    #[must_use]
    pub fn without(&self, key: &Key) -> Self {
        Self::from_latest(self.variants.iter().filter(|variant| variant.key != *key).cloned().collect())
    }

    /// Those of it, the one stored last first.
    pub fn iter(&self) -> impl Iterator<Item = &Variant> {
        self.variants.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.variants.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty()
    }

    /// Bytes of memory it takes, bookkeeping included.
    pub fn weight(&self) -> usize {
        let list = |list: &Arc<[HeaderName]>| {
            let name = |name: &HeaderName| allocated(name.as_str().len());
            shared(size_of_val(&**list)) + list.iter().map(name).sum::<usize>()
        };
        shared(size_of::<Self>())
            + allocated(size_of_val(&*self.lists))
            + self.lists.iter().map(list).sum::<usize>()
            + allocated(size_of_val(&*self.variants))
            + self.variants.iter().map(Variant::weight).sum::<usize>()
    }

    fn from_latest(variants: Box<[Variant]>) -> Self {
        let mut lists: Vec<Arc<[HeaderName]>> = Vec::new();
        for variant in &variants {
            if !lists.contains(&variant.fields) {
                lists.push(Arc::clone(&variant.fields));
            }
        }
        Self { lists: lists.into(), variants }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{
        super::{fields::tests::map, vary::Vary},
        *,
    };

    const PRIMARY: Key = Key::from_bytes([7; 32]);
    const BY: Comparing<'_> = Comparing { secret: &[9; 32], normalise: true };

    type Lines<'a> = &'a [(&'static str, &'a str)];

    /// The variant of a response with these fields to a request with those.
    fn variant(request: Lines<'_>, response: Lines<'_>, now: u64) -> Variant {
        let response = map(response);
        let head = Head::new(StatusCode::OK, &response);
        let vary = Vary::of(&response);
        Variant::new(&PRIMARY, vary.fields(), &map(request), &head, BY, Timestamp::from_secs(now))
    }

    fn stored(variants: &[&Variant]) -> Variants {
        variants.iter().fold(Variants::default(), |all, one| all.with((*one).clone(), 8))
    }

    fn select(variants: &Variants, request: Lines<'_>) -> Option<Key> {
        variants.select(&PRIMARY, &map(request), BY)
    }

    #[test]
    fn variants_live_side_by_side() {
        let one = variant(&[("foo", "1")], &[("vary", "Foo")], 1);
        let two = variant(&[("foo", "2")], &[("vary", "Foo")], 2);
        let both = stored(&[&one, &two]);
        assert_eq!(select(&both, &[("foo", "1")]), Some(one.key));
        assert_eq!(select(&both, &[("foo", "2"), ("bar", "x")]), Some(two.key));
        assert_eq!(select(&both, &[("foo", "3")]), None);
        assert_eq!(select(&both, &[]), None);
        let left = both.without(&one.key);
        assert_eq!(select(&left, &[("foo", "1")]), None);
        assert_eq!(left.len(), 1);
        assert!(left.without(&two.key).is_empty());
    }

    #[test]
    fn absent_matches_absent() {
        let omitted = variant(&[], &[("vary", "Foo")], 1);
        let all = stored(&[&omitted]);
        assert_eq!(select(&all, &[]), Some(omitted.key));
        assert_eq!(select(&all, &[("foo", "1")]), None);
    }

    #[test]
    fn of_several_lists_the_variant_stored_last_wins() {
        let request: Lines<'_> = &[("foo", "1"), ("bar", "1")];
        let by_foo = variant(request, &[("vary", "Foo")], 1);
        let by_bar = variant(request, &[("vary", "Bar")], 2);
        let plain = variant(request, &[], 3);
        assert_eq!(select(&stored(&[&by_foo, &by_bar]), request), Some(by_bar.key));
        assert_eq!(select(&stored(&[&by_bar, &by_foo]), request), Some(by_foo.key));
        assert_eq!(select(&stored(&[&by_bar, &by_foo]), &[("bar", "1")]), Some(by_bar.key));
        assert_eq!(select(&stored(&[&by_foo, &plain]), &[]), Some(plain.key));
        let again = stored(&[&by_foo, &by_bar]).with(by_foo.clone(), 8);
        assert_eq!(again.iter().map(Variant::key).collect::<Vec<_>>(), [&by_foo.key, &by_bar.key]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let texts: Vec<_> = (0..5).map(|number| number.to_string()).collect();
        let variants: Vec<_> = texts.iter().map(|text| variant(&[("foo", text)], &[("vary", "Foo")], 0)).collect();
        let kept = variants.iter().fold(Variants::default(), |all, one| all.with(one.clone(), 3));
        assert_eq!(kept.len(), 3);
        assert_eq!(kept.lists.len(), 1);
        assert_eq!(select(&kept, &[("foo", "1")]), None);
        assert_eq!(select(&kept, &[("foo", "2")]), Some(variants[2].key));
        assert_eq!(kept.with(variants[0].clone(), 0).len(), 1);
        assert!(kept.weight() > stored(&[&variants[0]]).weight());
    }

    #[test]
    fn a_preferred_language_is_as_good_as_a_match() {
        let vary = ("vary", "Accept-Language, Foo");
        let german = variant(&[("accept-language", "en, de")], &[vary, ("content-language", "De")], 1);
        let french = variant(&[("accept-language", "fr")], &[vary, ("content-language", "fr")], 2);
        let mixed = variant(&[("accept-language", "it")], &[vary, ("content-language", "it, es")], 3);
        let all = stored(&[&german, &french, &mixed]);
        assert_eq!(select(&all, &[("accept-language", "fr;q=0.5, de;q=1.0")]), Some(german.key));
        assert_eq!(select(&all, &[("accept-language", "fr, de")]), Some(french.key));
        assert_eq!(select(&all, &[("accept-language", "de, en")]), Some(german.key));
        assert_eq!(select(&all, &[("accept-language", "es")]), None);
        assert_eq!(select(&all, &[("accept-language", "*")]), None);
        assert_eq!(select(&all, &[("accept-language", "de"), ("foo", "1")]), None);
        assert_eq!(select(&all, &[]), None);
        let by_bytes = Comparing { normalise: false, ..BY };
        assert_eq!(all.select(&PRIMARY, &map(&[("accept-language", "de")]), by_bytes), None);
    }
}
