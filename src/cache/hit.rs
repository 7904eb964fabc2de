//! Answers from what is stored: whole, in part, or as 304 (RFC 9110 sections 13 and 14, RFC 9111 section 4).

use std::{ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::{
    asked::Asked,
    body::{Body, Segment},
    fill::Shared,
    growing::Reader,
    outcome::Outcome,
};
use crate::{
    object::{
        conditional::{self, Precondition},
        entry::Entry,
        head::{self, Head},
        range::{self, ContentRange, Multipart, Wanted},
        time::Timestamp,
        validators::Validators,
    },
    store::l3::Large,
};

/// What of the request the answer depends on.
pub(super) struct Asking<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) asked: Asked,
}

/// An answer from an entry.
pub(super) fn from_entry(
    entry: &Arc<Entry>,
    reader: &Asking<'_>,
    outcome: &Outcome,
    name: &str,
    now: Timestamp,
) -> Response<Body> {
    let mut fields = entry.head.to_map();
    fields.insert(header::AGE, age(entry, now));
    fields.append(super::CACHE_STATUS, outcome.cache_status(name));
    let plain = !reader.asked.conditions && !reader.asked.range;
    if plain && entry.part().is_none() && *reader.method != Method::HEAD {
        return respond(entry.head.status, fields, Stored::of(entry).all());
    }
    let content = Content::Stored(Stored::of(entry), entry.part());
    shaped(&entry.head, &entry.validators(), fields, content, reader)
}

/// Whether the client holds the response already, by the conditions of its GET.
pub(super) fn is_held(entry: &Entry, request: &HeaderMap) -> bool {
    conditional::evaluate(request, &Method::GET, &entry.head, &entry.validators()) == Precondition::NotModified
}

/// Writes the head of a plain answer from an entry, with its own status or 304, as HTTP/1.1 sends it and without its
/// empty line; false, with nothing written, where the answer is not plain.
pub(super) fn write_head(
    entry: &Entry,
    status: StatusCode,
    outcome: &Outcome,
    name: &str,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> bool {
    let without_content = matches!(entry.head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if entry.part().is_some() || entry.elsewhere().is_some() || without_content {
        return false;
    }
    let Some(reason) = status.canonical_reason() else { return false };
    for piece in [b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"] {
        out.extend_from_slice(piece);
    }
    let mut number = itoa::Buffer::new();
    if status == StatusCode::NOT_MODIFIED {
        conditional::not_modified_lines(&entry.head).for_each(|line| head::put_line(out, line));
    } else {
        out.extend_from_slice(entry.head.lines());
        if !entry.head.has_length() {
            head::put_line(out, (b"content-length", number.format(entry.content().len()).as_bytes()));
        }
    }
    let age = number.format(entry.freshness().age(now).as_secs());
    head::put_line(out, (b"age", age.as_bytes()));
    out.extend_from_slice(b"cache-status: ");
    // Writing to a vector cannot fail.
    let _ = outcome.write(name, out);
    out.extend_from_slice(b"\r\n");
    true
}

/// An answer from a response whose body is still arriving.
pub(super) fn from_shared(shared: &Shared, body: Reader, reader: &Asking<'_>, fields: HeaderMap) -> Response<Body> {
    if shared.part || (!reader.asked.conditions && !reader.asked.range) {
        let body = body.at_once().map_or_else(|| Body::Growing(body), Body::Full);
        return respond(shared.status, fields, body);
    }
    let head = Head::new(shared.status, &shared.fields);
    shaped(&head, &shared.validators, fields, Content::Growing(body, shared.length), reader)
}

/// Content to take an answer's bytes from.
enum Content {
    Stored(Stored, Option<ContentRange>),
    Growing(Reader, Option<u64>),
}

/// Stored content, wherever it lies.
enum Stored {
    Memory(Bytes),
    Disk(Large),
}

impl Stored {
    fn of(entry: &Arc<Entry>) -> Self {
        Large::of(entry).map_or_else(|| Self::Memory(entry.body()), Self::Disk)
    }

    fn length(&self) -> u64 {
        match self {
            Self::Memory(body) => body.len() as u64,
            Self::Disk(large) => large.length(),
        }
    }

    fn all(&self) -> Body {
        match self {
            Self::Memory(body) => Body::Full(body.clone()),
            Self::Disk(large) => Body::Stored(large.all()),
        }
    }

    fn only(&self, wanted: RangeInclusive<u64>) -> Body {
        match self {
            Self::Memory(body) => Body::Full(range::slice(body, &wanted)),
            Self::Disk(large) => Body::Stored(large.pieces(wanted)),
        }
    }

    fn several(&self, multipart: Multipart) -> Body {
        let segment = |segment| match (segment, self) {
            (range::Segment::Text(text), _) => Segment::Bytes(text),
            (range::Segment::Content(wanted), Self::Memory(body)) => Segment::Bytes(range::slice(body, &wanted)),
            (range::Segment::Content(wanted), Self::Disk(large)) => Segment::Stored(large.pieces(wanted)),
        };
        Body::Segments(multipart.segments.into_iter().map(segment).collect())
    }
}

fn shaped(
    head: &Head,
    validators: &Validators,
    mut fields: HeaderMap,
    content: Content,
    reader: &Asking<'_>,
) -> Response<Body> {
    if reader.asked.conditions {
        match conditional::evaluate(reader.headers, reader.method, head, validators) {
            Precondition::NotModified => return not_modified(head, &fields),
            // Conditions for the origin alone have been passed to it before anything was looked up.
            Precondition::Send | Precondition::Origin => {}
        }
    }
    match content {
        Content::Stored(stored, Some(part)) => from_part(head, validators, fields, &stored, part, reader),
        Content::Stored(stored, None) if *reader.method == Method::HEAD => {
            fields.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(stored.length()));
            respond(head.status, fields, Body::Empty)
        }
        Content::Stored(stored, None) => {
            let length = Some(stored.length());
            let body = |wanted: Option<_>| wanted.map_or_else(|| stored.all(), |wanted| stored.only(wanted));
            ranged(head, validators, fields, length, reader, body, Some(&stored))
        }
        Content::Growing(growing, length) => {
            let mut growing = Some(growing);
            ranged(
                head,
                validators,
                fields,
                length,
                reader,
                |wanted| match (wanted, growing.take()) {
                    (None, Some(reader)) => reader.at_once().map_or_else(|| Body::Growing(reader), Body::Full),
                    (Some(wanted), Some(reader)) => Body::Growing(reader.only(*wanted.start(), *wanted.end())),
                    (_, None) => Body::Empty,
                },
                None,
            )
        }
    }
}

/// Range handling over content of a known length; `whole` is needed for several ranges at once.
fn ranged(
    head: &Head,
    validators: &Validators,
    mut fields: HeaderMap,
    length: Option<u64>,
    reader: &Asking<'_>,
    mut body: impl FnMut(Option<RangeInclusive<u64>>) -> Body,
    whole: Option<&Stored>,
) -> Response<Body> {
    let (Some(length), true) =
        (length, reader.asked.range && head.status == StatusCode::OK && *reader.method == Method::GET)
    else {
        return respond(head.status, fields, body(None));
    };
    match range::wanted(reader.headers, reader.method, validators, length) {
        Wanted::All => respond(head.status, fields, body(None)),
        Wanted::One(wanted) => {
            partial_fields(&mut fields, &ContentRange::new(&wanted, length));
            respond(StatusCode::PARTIAL_CONTENT, fields, body(Some(wanted)))
        }
        Wanted::Many(wanted) => match whole {
            Some(whole) => {
                let content_type = fields.get(header::CONTENT_TYPE).cloned();
                let multipart = range::multipart(length, &wanted, content_type.as_ref(), seed());
                fields.insert(header::CONTENT_TYPE, multipart.content_type.clone());
                fields.insert(header::CONTENT_LENGTH, HeaderValue::from(multipart.length));
                respond(StatusCode::PARTIAL_CONTENT, fields, whole.several(multipart))
            }
            None => respond(head.status, fields, body(None)),
        },
        Wanted::Unsatisfiable => {
            fields.remove(header::CONTENT_LENGTH);
            fields.remove(header::CONTENT_TYPE);
            fields.insert(header::CONTENT_RANGE, ContentRange::unsatisfied(length));
            respond(StatusCode::RANGE_NOT_SATISFIABLE, fields, Body::Empty)
        }
    }
}

/// An answer from a stored part, which has been found to cover what is wanted.
fn from_part(
    head: &Head,
    validators: &Validators,
    mut fields: HeaderMap,
    stored: &Stored,
    part: ContentRange,
    reader: &Asking<'_>,
) -> Response<Body> {
    let length = usize::try_from(stored.length()).unwrap_or(usize::MAX);
    match range::from_part(reader.headers, reader.method, validators, &part, length) {
        Some(cut) => {
            partial_fields(&mut fields, &cut.content_range);
            let wanted = cut.body.start as u64..=(cut.body.end as u64).saturating_sub(1);
            let body = if cut.body.is_empty() { Body::Empty } else { stored.only(wanted) };
            respond(StatusCode::PARTIAL_CONTENT, fields, body)
        }
        None => respond(head.status, fields, stored.all()),
    }
}

fn partial_fields(fields: &mut HeaderMap, part: &ContentRange) {
    fields.insert(header::CONTENT_RANGE, part.value());
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(part.length()));
}

/// A 304 with what of `fields` a 304 carries, and what the gateway says of itself.
fn not_modified(head: &Head, fields: &HeaderMap) -> Response<Body> {
    let mut kept = conditional::not_modified_fields(head);
    for name in [header::AGE, super::CACHE_STATUS] {
        for value in fields.get_all(&name) {
            kept.append(&name, value.clone());
        }
    }
    respond(StatusCode::NOT_MODIFIED, kept, Body::Empty)
}

/// What keeps the boundary of a multipart answer from being foreseen by whoever wrote the content.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the boundary can be foreseen, and nothing else is wrong with it.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn age(entry: &Entry, now: Timestamp) -> HeaderValue {
    HeaderValue::from(entry.freshness().age(now).as_secs())
}

pub(super) fn respond(status: StatusCode, fields: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}
