//! The base verdict on storing a response, from `http-cache-semantics`.
//!
//! The crate never sees a message: it sees one made up here of what has been parsed, with one lower-case
//! `Cache-Control` line, dates written anew, and neither Age, Vary, Set-Cookie, Pragma nor any unknown directive, each
//! of which it would read in its own way. Of its list of statuses only "storable" and "not storable" are left.

use std::{cell::Cell, fmt::Write as _, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, DATE, EXPIRES, LAST_MODIFIED},
};
use http_cache_semantics::{CacheOptions, CachePolicy};

use crate::object::{date, time::Timestamp};

/// What the base verdict depends on.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) request_no_store: bool,
    /// The request carried `Authorization`, and that counts.
    pub(super) authorization: bool,
    /// The status may be stored under these circumstances.
    pub(super) storable_status: bool,
    /// The configuration gives a lifetime, which makes up for a missing one.
    pub(super) configured: bool,
    pub(super) no_store: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    /// The epoch if the field makes no sense.
    pub(super) expires: Option<Timestamp>,
    pub(super) date: Option<Timestamp>,
    pub(super) last_modified: Option<Timestamp>,
    pub(super) response_time: Timestamp,
    pub(super) heuristic_fraction: f64,
}

/// The base verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) storable: bool,
    /// Freshness lifetime, explicit or heuristic, of which no age has been taken off.
    pub(super) lifetime: Duration,
}

/// The base verdict. The crate is asked once for each set of terms: a site has a handful of `Cache-Control` lines, and to
/// make up two messages for the crate to take apart costs more than all the rest of a verdict.
pub(super) fn judge(question: &Question) -> Base {
    match Terms::of(question) {
        Some(terms) => REMEMBERED.with(|answers| terms.remembered(answers, || ask(question))),
        None => ask(question),
    }
}

/// What the verdict on a response with `max-age` or `s-maxage` depends on: these, and no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    max_age: Option<u64>,
    s_maxage: Option<u64>,
    flags: [bool; 9],
}

/// Sets of terms whose answer is remembered by each thread.
const REMEMBERED_MAX: usize = 64;

type Remembered = [Cell<Option<(Terms, Base)>>; REMEMBERED_MAX];

thread_local! {
    static REMEMBERED: Remembered = const { [const { Cell::new(None) }; REMEMBERED_MAX] };
}

impl Terms {
    fn of(question: &Question) -> Option<Self> {
        question.s_maxage.or(question.max_age)?;
        let flags = [
            question.method == Method::POST,
            question.request_no_store,
            question.authorization,
            question.storable_status,
            question.configured,
            question.no_store,
            question.private,
            question.public,
            question.must_revalidate,
        ];
        Some(Self { max_age: question.max_age, s_maxage: question.s_maxage, flags })
    }

    fn remembered(self, answers: &Remembered, ask: impl FnOnce() -> Base) -> Base {
        let place = &answers[self.place()];
        if let Some((terms, base)) = place.get()
            && terms == self
        {
            return base;
        }
        let base = ask();
        place.set(Some((self, base)));
        base
    }

    fn place(self) -> usize {
        let flags = self.flags.iter().fold(0_u64, |bits, &flag| bits << 1 | u64::from(flag));
        let mixed = (self.max_age.unwrap_or(1) ^ self.s_maxage.unwrap_or(2).rotate_left(32) ^ flags.rotate_left(17))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 58) as usize % REMEMBERED_MAX
    }
}

/// Asks the crate.
fn ask(question: &Question) -> Base {
    let response_time = question.response_time.into();
    let options = CacheOptions {
        shared: true,
        #[expect(clippy::cast_possible_truncation, reason = "a share needs no more precision")]
        cache_heuristic: question.heuristic_fraction as f32,
        immutable_min_time_to_live: Duration::ZERO,
        ignore_cargo_cult: false,
    };
    let policy = CachePolicy::new_options(&request(question), &response(question), response_time, options);
    Base { storable: policy.is_storable(), lifetime: policy.time_to_live(response_time) }
}

fn request(question: &Question) -> Request<()> {
    let mut request = Request::new(());
    // The crate knows no other safe methods; whether the response is to another one has been settled before.
    *request.method_mut() = if question.method == Method::POST { Method::POST } else { Method::GET };
    if question.request_no_store {
        request.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if question.authorization {
        // A stand-in: credentials are nobody's business here.
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("present"));
    }
    request
}

fn response(question: &Question) -> Response<()> {
    let mut response = Response::new(());
    // The crate calls 200 storable and 201 not.
    *response.status_mut() = if question.storable_status { StatusCode::OK } else { StatusCode::CREATED };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, cache_control(question));
    for (name, time) in [(DATE, question.date), (EXPIRES, question.expires), (LAST_MODIFIED, question.last_modified)] {
        insert(headers, name, time);
    }
    response
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, time: Option<Timestamp>) {
    if let Some(time) = time {
        headers.insert(name, date::format(time));
    }
}

fn cache_control(question: &Question) -> HeaderValue {
    let mut line = String::new();
    for (name, set) in [
        ("no-store", question.no_store),
        ("private", question.private),
        ("public", question.public),
        ("must-revalidate", question.must_revalidate),
    ] {
        if set {
            line.push_str(name);
            line.push_str(", ");
        }
    }
    let max_age = question.max_age.or_else(|| question.configured.then_some(0));
    for (name, seconds) in [("s-maxage", question.s_maxage), ("max-age", max_age)] {
        if let Some(seconds) = seconds {
            write!(line, "{name}={seconds}, ").expect("writing to a string does not fail");
        }
    }
    HeaderValue::try_from(line.trim_end_matches(", ")).expect("directives are visible ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    /// The same by the letter of RFC 9111 sections 3, 3.5, 4.2.1 and 4.2.2.
    fn by_the_book(question: &Question) -> Base {
        let explicit =
            question.s_maxage.or(question.max_age).is_some() || question.expires.is_some() || question.configured;
        let shared = question.public || question.must_revalidate || question.s_maxage.is_some();
        let storable = question.storable_status
            && !question.no_store
            && !question.private
            && !question.request_no_store
            && (!question.authorization || shared)
            && (question.method != Method::POST || explicit);
        let date = question.date.unwrap_or(question.response_time);
        let lifetime = match (question.s_maxage.or(question.max_age), question.expires, question.last_modified) {
            _ if !storable => Duration::ZERO,
            (Some(seconds), ..) => Duration::from_secs(seconds),
            _ if question.configured => Duration::ZERO,
            (None, Some(expires), _) => expires.since(date),
            (None, None, Some(modified)) => Duration::from_secs(date.since(modified).as_secs() / 2),
            (None, None, None) => Duration::ZERO,
        };
        Base { storable, lifetime }
    }

    fn instant() -> impl Strategy<Value = Timestamp> {
        (0..=253_402_300_799_u64).prop_map(Timestamp::from_secs)
    }

    prop_compose! {
        fn question()(
            flags: [bool; 9],
            max_age in option::of(0..=1_u64 << 31),
            s_maxage in option::of(0..=1_u64 << 31),
            expires in option::of(instant()),
            date in option::of(instant()),
            last_modified in option::of(instant()),
            response_time in instant(),
        ) -> Question {
            Question {
                method: if flags[0] { Method::POST } else { Method::GET },
                request_no_store: flags[1] && flags[2],
                authorization: flags[2],
                storable_status: flags[3] || flags[4],
                configured: flags[4] && flags[5],
                no_store: flags[5] && flags[6],
                private: flags[6] && flags[7],
                public: flags[7],
                must_revalidate: flags[8],
                max_age,
                s_maxage,
                expires,
                date,
                last_modified,
                response_time,
                heuristic_fraction: 0.5,
            }
        }
    }

    proptest! {
        #[test]
        fn the_crate_agrees_with_the_book(question in question()) {
            prop_assert_eq!(ask(&question), by_the_book(&question));
            prop_assert_eq!(judge(&question), by_the_book(&question), "asked");
            prop_assert_eq!(judge(&question), by_the_book(&question), "remembered");
        }

        #[test]
        fn what_is_remembered_is_of_the_same_terms(ages in proptest::collection::vec((0..4_u64, 0..4_u64), 1..40), one in question()) {
            for (max_age, s_maxage) in ages {
                let question = Question { max_age: Some(max_age), s_maxage: Some(s_maxage), ..one.clone() };
                prop_assert_eq!(judge(&question), by_the_book(&question));
            }
        }

        #[test]
        fn no_time_or_share_makes_it_panic(mut question in question(), millis: u64, share: f64) {
            question.response_time = Timestamp::from_millis(millis);
            question.expires = Some(Timestamp::from_millis(millis.rotate_left(13)));
            question.last_modified = Some(Timestamp::NEVER);
            question.heuristic_fraction = share;
            judge(&question);
        }
    }
}
