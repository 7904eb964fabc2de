//! What the steps of a request cost, one by one: `cargo bench --bench object [NAME]`.
//!
//! For whoever changes one of them: before and after, on the same machine. What a whole request costs is guarded by
//! `make instructions`, and measured by `load-tests/`.

use std::{hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use bytesize::ByteSize;
use divan::Bencher;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use larder::{
    cache::{
        config::{Policy, Query},
        route::{Class, OwnFields, ResponseRules, Route},
        target::View,
    },
    config::{self, Sources},
    object::{
        codec,
        directives::{self, RequestDirectives},
        entry::{Entry, Unpacked},
        freshness::{Flags, Freshness},
        head::Head,
        key::{Key, KeyBuilder},
        path::{normalise_authority, normalise_path},
        plain::{Plain, Slots},
        reuse,
        scope::{Position, Scope},
        time::Timestamp,
        validators::Validators,
        vary::{self, Comparing, Variant, Variants, Vary},
        verdict::{self, Facts},
    },
    store::{EvictionPolicy, L1, L1Config, Slot},
};
use mimalloc::MiMalloc;
use prometheus_client::registry::Registry;

/// The one the gateway has.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const SECRET: [u8; 32] = [7; 32];
const NOW: Timestamp = Timestamp::from_secs(1_764_583_200);
const SITE: &str = "http://shop.example";
const PATH: &str = "/v1/articles/4711";

fn main() {
    divan::main();
}

// === What requests and responses carry ===

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn request() -> HeaderMap {
    fields(&[
        ("host", "shop.example"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json, text/plain;q=0.9, */*;q=0.8"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"),
        ("cache-control", "max-age=600"),
    ])
}

fn response() -> HeaderMap {
    fields(&[
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("cache-control", "public, max-age=3600, stale-while-revalidate=60"),
        ("etag", "\"5f3c1d9a7e\""),
        ("last-modified", "Sat, 01 Nov 2025 10:00:00 GMT"),
        ("date", "Mon, 01 Dec 2025 10:00:00 GMT"),
        ("vary", "Accept-Encoding, Accept-Language"),
        ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("via", "1.1 larder"),
    ])
}

fn freshness() -> Freshness {
    let until = |seconds| NOW.plus(Duration::from_secs(seconds));
    Freshness {
        born: NOW,
        fresh_until: until(3600),
        swr_until: until(3660),
        sie_until: until(3600),
        keep_until: until(7200),
        flags: Flags::default(),
    }
}

fn key(number: u64) -> Key {
    KeyBuilder::new("bench").field(&number.to_le_bytes()).finish()
}

fn entry(key: Key) -> Entry {
    let mut scopes = vec![Scope::url(SITE, PATH, None), Scope::everything(), Scope::site(SITE), Scope::key(&key)];
    scopes.extend(Scope::prefixes(SITE, PATH));
    Unpacked {
        key,
        primary: key,
        stamp: Position::START,
        scopes: scopes.into(),
        url: format!("{SITE}{PATH}").into(),
        tags: "".into(),
        head: Head::new(StatusCode::OK, &response()),
        body: Bytes::from(vec![b'x'; 1024]),
        elsewhere: None,
        part: None,
        freshness: freshness(),
        stored: NOW,
        fill_millis: 5,
        hits: 0,
    }
    .pack()
}

// === Requests ===

/// A request as it lies in a read buffer.
#[divan::bench]
fn plain_request(bencher: Bencher<'_, '_>) {
    let text = "GET /v1/articles/4711 HTTP/1.1\r\nhost: shop.example\r\nuser-agent: wrk\r\naccept: */*\r\n\r\n";
    bencher.bench(|| {
        let mut slots = Slots::default();
        Plain::parse(black_box(text.as_bytes()), &mut slots).map(|(request, length)| (request.target.len(), length))
    });
}

#[divan::bench(args = ["/v1/articles/4711", "/v1/%61rticles/../articles/4711"])]
fn path_normalised(path: &str) -> usize {
    normalise_path(black_box(path)).len()
}

#[divan::bench(args = ["shop.example", "Shop.Example:80"])]
fn authority_normalised(authority: &str) -> bool {
    normalise_authority("http", black_box(authority)).is_ok()
}

#[divan::bench]
fn request_directives(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench(|| RequestDirectives::of(black_box(&request)));
}

// === Keys ===

fn route(query: Query, key_headers: &[&str]) -> Route {
    let defaults = config::load(&Sources::default()).expect("the defaults are right").cache;
    let key_headers = key_headers.iter().map(|&name| name.to_owned()).collect();
    let query_without = if query == Query::Sorted { vec!["utm_*".to_owned()] } else { Vec::new() };
    let policy = Policy { query, query_without, key_headers, ..defaults };
    Route::new("shop", None, policy, ResponseRules::default(), OwnFields::default())
}

fn bench_key(bencher: Bencher<'_, '_>, route: &Route, query: Option<&str>) {
    let request = request();
    let view = View { scheme: "http", path: PATH, query, site: SITE, forwarded: false, tenant: None };
    bencher.bench(|| black_box(view).key(route, &SECRET, &&request, Class::Get, None));
}

#[divan::bench]
fn key_of_a_path(bencher: Bencher<'_, '_>) {
    bench_key(bencher, &route(Query::AsSent, &[]), None);
}

#[divan::bench]
fn key_with_query(bencher: Bencher<'_, '_>) {
    bench_key(bencher, &route(Query::AsSent, &[]), Some("page=2&sort=price&utm_source=letter"));
}

#[divan::bench]
fn key_with_sorted_query(bencher: Bencher<'_, '_>) {
    bench_key(bencher, &route(Query::Sorted, &[]), Some("page=2&sort=price&utm_source=letter"));
}

#[divan::bench]
fn key_with_fields(bencher: Bencher<'_, '_>) {
    bench_key(bencher, &route(Query::AsSent, &["accept", "accept-language"]), None);
}

// === Freshness ===

#[divan::bench]
fn verdict_on_a_response(bencher: Bencher<'_, '_>) {
    let (route, response) = (route(Query::AsSent, &[]), response());
    let facts = Facts {
        method: &Method::GET,
        request_no_store: false,
        authorization: false,
        partitioned: false,
        range_requested: false,
        request_time: NOW,
        response_time: NOW,
        jitter: 0.0,
    };
    bencher.bench(|| {
        let told = directives::effective(black_box(&response));
        verdict::verdict(&facts, StatusCode::OK, &response, &told, &route.rules)
    });
}

#[divan::bench]
fn reuse_of_an_entry(bencher: Bencher<'_, '_>) {
    let (entry, request) = (entry(key(1)), RequestDirectives::of(&request()));
    let now = NOW.plus(Duration::from_secs(5));
    bencher.bench(|| reuse::reuse(&black_box(&entry).freshness(), now, &request, false));
}

#[divan::bench]
fn validators_of_an_entry(bencher: Bencher<'_, '_>) {
    let entry = entry(key(1));
    bencher.bench(|| black_box(&entry).validators());
}

#[divan::bench]
fn validators_of_a_response(bencher: Bencher<'_, '_>) {
    let response = response();
    bencher.bench(|| Validators::of(black_box(&response)));
}

// === Vary ===

const COMPARING: [bool; 2] = [false, true];

#[divan::bench(args = COMPARING)]
fn variant_key(bencher: Bencher<'_, '_>, normalise: bool) {
    let (primary, request, vary) = (key(1), request(), Vary::of(&response()));
    let comparing = Comparing { secret: &SECRET, normalise };
    bencher.bench(|| vary::variant_key(black_box(&primary), vary.fields(), &request, comparing));
}

#[divan::bench(args = COMPARING)]
fn variant_selected(bencher: Bencher<'_, '_>, normalise: bool) {
    let (primary, request, vary) = (key(1), request(), Vary::of(&response()));
    let comparing = Comparing { secret: &SECRET, normalise };
    let head = Head::new(StatusCode::OK, &response());
    let languages = ["fr", "en", "it", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"];
    let variants = languages.iter().fold(Variants::default(), |known, language| {
        let mut request = request.clone();
        request.insert("accept-language", HeaderValue::from_static(language));
        known.with(Variant::new(&primary, vary.fields(), &request, &head, comparing, NOW), 8)
    });
    assert!(variants.select(&primary, &request, comparing).is_some());
    bencher.bench(|| black_box(&variants).select(&primary, &request, comparing));
}

// === Entries ===

#[divan::bench]
fn head_made(bencher: Bencher<'_, '_>) {
    let response = response();
    bencher.bench(|| Head::new(StatusCode::OK, black_box(&response)));
}

#[divan::bench]
fn head_as_a_map(bencher: Bencher<'_, '_>) {
    let head = Head::new(StatusCode::OK, &response());
    bencher.bench(|| black_box(&head).to_map());
}

#[divan::bench]
fn entry_packed(bencher: Bencher<'_, '_>) {
    let entry = Arc::new(entry(key(1)));
    bencher.with_inputs(|| entry.under(entry.head.clone())).bench_values(Unpacked::pack);
}

#[divan::bench]
fn body_of_an_entry(bencher: Bencher<'_, '_>) {
    let entry = Arc::new(entry(key(1)));
    bencher.bench(|| black_box(&entry).body());
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let entry = entry(key(1));
    bencher.bench(|| codec::encode(black_box(&entry)));
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let bytes = codec::encode(&entry(key(1)));
    bencher.bench(|| codec::decode(black_box(&bytes)));
}

#[divan::bench(args = [1, 10_000])]
fn l1_lookup(bencher: Bencher<'_, '_>, entries: u64) {
    let config = L1Config { max_bytes: ByteSize::mib(256), policy: EvictionPolicy::S3Fifo, object_share_max: 0.1 };
    let l1 = L1::new(&config, &mut Registry::default());
    let keys: Vec<Key> = (0..entries).map(key).collect();
    keys.iter().for_each(|&key| l1.insert(key, Slot::Entry(Arc::new(entry(key)))));
    let mut next = keys.iter().cycle();
    bencher.bench_local(|| l1.lookup(next.next()?));
}
