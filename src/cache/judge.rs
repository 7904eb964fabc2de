//! What becomes of a response head, whatever brought it: a new response, a 304, an answer to HEAD, parts that were
//! combined. Whether it is stored and until when, the fields that are kept, and what purges reach it by.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    Cache,
    exchange::Exchange,
    llm::{self, Asking},
    refused::Refused,
    route::Route,
    target::Target,
};
use crate::{
    object::{
        age, date, directives,
        entry::{Entry, Unpacked},
        freshness::{Flags, Freshness},
        head::Head,
        scope::{Position, Scope},
        tags,
        time::Timestamp,
        validators::Validators,
        verdict::{self, Facts, Verdict},
    },
    purge::Standing,
};

/// What a head is judged by.
pub(super) struct Judging<'a> {
    pub(super) route: &'a Route,
    /// Fields of the request.
    pub(super) client: &'a HeaderMap,
    pub(super) facts: Facts<'a>,
    /// Scopes it has whatever its tags are.
    pub(super) scopes: &'a Arc<[Scope]>,
    /// Tags that the content has already, separated by blanks.
    pub(super) tags: &'a str,
    /// Position of the purge log before the request left (rule F1).
    pub(super) stamp: Position,
    /// What a call to a model asks, if it is one.
    pub(super) model: Option<&'a Asking>,
}

/// A head that may be stored.
pub(super) struct Judged {
    /// The fields a tier keeps: all but those a hit computes or never repeats.
    pub(super) head: Head,
    pub(super) validators: Validators,
    /// `no-cache="a"` and `private="a"`: not to be used again without validation, so not kept, and of those who wait
    /// only for the one that asked.
    pub(super) withheld: Vec<HeaderName>,
    pub(super) freshness: Freshness,
    pub(super) scopes: Arc<[Scope]>,
    pub(super) tags: Box<str>,
}

/// A stored response under new fields.
pub(super) struct Renewed {
    pub(super) entry: Unpacked,
    /// See [`Judged::withheld`].
    pub(super) withheld: Vec<HeaderName>,
}

impl Cache {
    /// Judges a response of `status` with these end-to-end `fields`.
    pub(super) fn judge(
        &self,
        judging: &Judging<'_>,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> Result<Judged, Refused> {
        let Judging { route, client, facts, .. } = judging;
        let told = directives::effective(fields);
        let rules = match judging.model {
            Some(model) => model.rules_for(status)?,
            None => Cow::Borrowed(&route.rules),
        };
        let freshness = match verdict::verdict(facts, status, fields, &told, &rules) {
            Verdict::Store(freshness) => freshness,
            Verdict::Refuse(reason) => return Err(reason.into()),
        };
        let (tags, scopes) = self.tagged(judging, route, client, fields)?;
        // F2: known only now, a tag may have been purged since the request left.
        if self.purge_log().verdict(judging.stamp, &scopes) == Standing::Hard {
            return Err(Refused::Purged);
        }
        let freshness = self.held(freshness, &scopes, facts.response_time);
        let mut withheld = told.directives.withheld;
        if judging.model.is_some() {
            withheld.extend(fields.keys().filter(|name| llm::is_withheld(name.as_str(), status)).cloned());
        }
        // All that an answer of a model depends on is in its key.
        let depends = |name: &HeaderName| judging.model.is_some() && *name == header::VARY;
        let kept = |name: &HeaderName| route.keeps(name) && !withheld.contains(name) && !depends(name);
        let head = Head::of(status, fields, kept);
        let validators = if withheld.is_empty() { Validators::of(fields) } else { Validators::of(&head.to_map()) };
        Ok(Judged { head, validators, freshness, scopes, tags, withheld })
    }

    /// The tags of a response beside those its content has already, and all scopes.
    fn tagged(
        &self,
        judging: &Judging<'_>,
        route: &Route,
        client: &HeaderMap,
        fields: &HeaderMap,
    ) -> Result<(Box<str>, Arc<[Scope]>), Refused> {
        let max = route.policy.tags_max;
        // One pass over the names is less than a look-up of each field that may carry tags.
        if !route.tag_fields.are_in(fields) {
            return Ok((judging.tags.into(), Arc::clone(judging.scopes)));
        }
        let mut new = tags::of(fields, route.tag_fields.as_slice(), max).map_err(|_| Refused::TooManyTags)?;
        if new.is_empty() {
            return Ok((judging.tags.into(), Arc::clone(judging.scopes)));
        }
        let mut scopes = judging.scopes.to_vec();
        new.retain(|tag| !judging.tags.split(' ').any(|old| old == tag));
        let old = judging.tags.split_ascii_whitespace().count();
        if old + new.len() > max {
            return Err(Refused::TooManyTags);
        }
        let partition = Target::partition(route, self.secret(), client);
        for tag in &new {
            scopes.push(Scope::tag(b"", tag));
            if !partition.is_empty() {
                scopes.push(Scope::tag(&partition, tag));
            }
        }
        let all = judging.tags.split_ascii_whitespace().chain(new.iter().map(String::as_str));
        Ok((all.collect::<Vec<_>>().join(" ").into(), scopes.into()))
    }

    /// F7: within the hold of a purge, nothing it named is kept beyond it.
    fn held(&self, freshness: Freshness, scopes: &[Scope], now: Timestamp) -> Freshness {
        match self.purge_log().hold(scopes, now) {
            None => freshness,
            Some(hold) => {
                let until = now.plus(hold);
                Freshness {
                    fresh_until: freshness.fresh_until.min(until),
                    swr_until: freshness.swr_until.min(until),
                    sie_until: freshness.sie_until.min(until),
                    keep_until: freshness.keep_until.min(until),
                    ..freshness
                }
            }
        }
    }
}

impl<O> Exchange<O> {
    /// What a response to this exchange is judged by.
    pub(super) fn facts(&self, part: bool, request_time: Timestamp, response_time: Timestamp) -> Facts<'_> {
        Facts {
            method: &self.method,
            request_no_store: self.directives.no_store,
            authorization: self.headers.contains_key(header::AUTHORIZATION),
            partitioned: self.model.is_some() || self.route.partitions(&self.headers),
            range_requested: part,
            request_time,
            response_time,
            jitter: self.cache.jitter(self.route.policy.ttl_jitter),
        }
    }

    /// Whether an unsafe request to the same URL cannot tell its key.
    fn key_holds_more(&self) -> bool {
        let spelt = self.target.path != self.target.normal_path;
        self.body.is_some() || self.target.forwarded || spelt || self.route.keys_hold_more()
    }

    /// The same, with a mark where unsafe requests to the URL cannot tell the key.
    pub(super) fn marked(&self, freshness: Freshness) -> Freshness {
        let scattered = if self.key_holds_more() { Flags::SCATTERED } else { Flags::default() };
        Freshness { flags: freshness.flags.with(scattered), ..freshness }
    }

    /// The stored response `old` with the fields of a newer one, already merged (RFC 9111 section 3.2).
    pub(super) fn renewed(
        &self,
        old: &Arc<Entry>,
        status: StatusCode,
        fields: &HeaderMap,
        facts: Facts<'_>,
        stamp: Position,
    ) -> Result<Renewed, Refused> {
        // Under which key it would lie now, nobody can say without the request that selected it.
        if self.route.vary(&old.head.to_map()) != self.route.vary(fields) {
            return Err(Refused::VaryChanged);
        }
        let stored = facts.response_time;
        let (scopes, tags) = (&old.scopes().into(), old.tags());
        let model = self.model.as_ref();
        let judging = Judging { route: &self.route, client: &self.headers, facts, scopes, tags, stamp, model };
        let Judged { head, withheld, freshness, scopes, tags, .. } = self.cache.judge(&judging, status, fields)?;
        let freshness = self.marked(freshness);
        let entry = Unpacked { freshness, stamp, scopes, tags, stored, ..old.under(head) };
        Ok(Renewed { entry, withheld })
    }

    /// The stored response `old` with new fields, as it answers this one request whatever may be stored.
    pub(super) fn once(
        &self,
        old: &Arc<Entry>,
        status: StatusCode,
        mut fields: HeaderMap,
        requested: Timestamp,
        now: Timestamp,
    ) -> Arc<Entry> {
        let date = date::of(&fields, &header::DATE, now);
        let born = now.minus(age::corrected_initial(&fields, date, requested, now));
        fields.remove(header::AGE);
        self.cache.hide_tags(&self.route, &mut fields);
        let freshness = Freshness { born, ..old.freshness() };
        Arc::new(Unpacked { freshness, ..old.under(Head::new(status, &fields)) }.pack())
    }
}
