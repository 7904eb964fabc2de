//! Keys that come, go and cannot be had; what of a token is remembered.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{advance, sleep};

use super::*;
use crate::jwt::testing::{Signer, config, encoded};

/// What issuers answer, and how often they were asked.
#[derive(Clone)]
struct Web(Arc<(Mutex<Result<String, String>>, AtomicUsize)>);

impl Web {
    fn new(signers: &[&Signer]) -> Self {
        Self(Arc::new((Mutex::new(Ok(set(signers))), AtomicUsize::new(0))))
    }

    fn answers(&self, answer: Result<String, &str>) {
        *self.0.0.lock() = answer.map_err(str::to_owned);
    }

    fn asked(&self) -> usize {
        self.0.1.load(Relaxed)
    }
}

impl Fetch for Web {
    fn get(&self, _: &str, _: usize, _: Duration) -> BoxFuture<'static, Result<Bytes, String>> {
        let web = self.clone();
        Box::pin(async move {
            web.0.1.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(100)).await;
            web.0.0.lock().clone().map(Bytes::from)
        })
    }
}

fn set(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

fn limits() -> Limits {
    Limits {
        token_bytes_max: ByteSize::kib(8),
        remembered_bytes_max: ByteSize::mib(1),
        keys_bytes_max: ByteSize::kib(64),
        keys_max: 8,
        keys_tried_max: 4,
        keys_timeout: Duration::from_secs(5),
        refresh_min: Duration::from_secs(30),
        keys_max_age: Duration::from_hours(24),
    }
}

fn issuers(web: &Web, configs: &[Config]) -> Issuers {
    let made = Issuers::new(&limits(), configs, Arc::new(web.clone()), &mut Registry::default());
    made.expect("issuers")
}

/// What is taken, for an hour.
fn claims() -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    json!({ "iss": "https://idp.example", "sub": "ann", "aud": "larder", "exp": now + 3600, "roles": ["a"] })
}

fn token(signer: &Signer) -> String {
    signer.sign(&claims())
}

async fn fault(issuers: &Issuers, token: &str) -> Option<Fault> {
    issuers.verified(token.as_bytes()).await.err()
}

#[tokio::test(start_paused = true)]
async fn a_token_is_verified_once_and_remembered() {
    let signer = Signer::p256("k");
    let issuers = issuers(&Web::new(&[&signer]), &[config("roles = { a = 'purge' }")]);
    let token = token(&signer);
    assert!(issuers.remembered(token.as_bytes()).is_none());
    let claims = issuers.verified(token.as_bytes()).await.expect("taken");
    assert_eq!((&*claims.issuer, &*claims.name, claims.role), ("idp", "ann", Some(crate::jwt::Role::Purge)));
    assert_eq!(issuers.remembered(token.as_bytes()), Some(claims));
    let (message, _) = token.rsplit_once('.').expect("parts");
    assert!(issuers.remembered(format!("{message}.AAAA").as_bytes()).is_none(), "another signature");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told_apart() {
    let (signer, other) = (Signer::p256("k"), Signer::p256("k"));
    let issuers = issuers(&Web::new(&[&signer]), &[config("algorithms = ['ES256']")]);
    assert_eq!(fault(&issuers, &token(&signer)).await, None);
    assert_eq!(fault(&issuers, &token(&other)).await, Some(Fault::Signature));
    assert_eq!(fault(&issuers, &token(&Signer::rsa("k"))).await, Some(Fault::Algorithm));
    assert_eq!(fault(&issuers, &token(&Signer::secret("k", &[1; 32]))).await, Some(Fault::Algorithm));
    assert_eq!(fault(&issuers, "x.y.z").await, Some(Fault::Malformed));
    assert_eq!(fault(&issuers, &"x".repeat(9000)).await, Some(Fault::TooLong));
    let unsigned = format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded(claims().to_string()));
    assert_eq!(fault(&issuers, &unsigned).await, Some(Fault::Unsigned));
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        signer.sign(&claims)
    };
    assert_eq!(fault(&issuers, &with("iss", json!("https://idp.example/"))).await, Some(Fault::UnknownIssuer));
    assert_eq!(fault(&issuers, &with("aud", json!("other"))).await, Some(Fault::Audience));
    assert_eq!(fault(&issuers, &with("exp", json!(1))).await, Some(Fault::Expired));
    let mut nobody = claims();
    nobody.as_object_mut().expect("an object").remove("iss");
    assert_eq!(fault(&issuers, &signer.sign(&nobody)).await, Some(Fault::Missing("iss")));
    // Of one that is wrong nothing is believed: not even that it has expired.
    let mut forged = claims();
    forged["exp"] = json!(1);
    assert_eq!(fault(&issuers, &other.sign(&forged)).await, Some(Fault::Signature));
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_once_for_all_who_wait_and_an_old_one_ends() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let web = Web::new(&[&old]);
    let issuers = issuers(&web, &[config("")]);
    let (first, second) = (token(&old), token(&new));
    assert_eq!((fault(&issuers, &first).await, web.asked()), (None, 1));
    web.answers(Ok(set(&[&new])));
    advance(Duration::from_secs(31)).await;
    let waiting = join_all((0..50).map(|_| fault(&issuers, &second))).await;
    assert_eq!((waiting, web.asked()), (vec![None; 50], 2));
    assert!(issuers.remembered(first.as_bytes()).is_none(), "its key is gone");
    assert_eq!(fault(&issuers, &first).await, Some(Fault::UnknownKey));
    assert!(issuers.remembered(second.as_bytes()).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_same_keys_again_forget_nothing() {
    let signer = Signer::p256("k");
    let web = Web::new(&[&signer]);
    let issuers = issuers(&web, &[config("refresh = '1m'")]);
    let token = token(&signer);
    assert_eq!(fault(&issuers, &token).await, None);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(web.asked(), 2, "before they are needed");
    assert!(issuers.remembered(token.as_bytes()).is_some());
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_ask_seldom() {
    let signer = Signer::p256("k");
    let web = Web::new(&[&signer]);
    let issuers = issuers(&web, &[config("")]);
    assert_eq!(fault(&issuers, &token(&signer)).await, None);
    for number in 0..120 {
        let flood = (0..20).map(|one| token(&signer.renamed(&format!("{number}-{one}"))));
        for token in flood {
            assert_eq!(fault(&issuers, &token).await, Some(Fault::UnknownKey));
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!((2..=5).contains(&web.asked()), "{}", web.asked());
}

#[tokio::test(start_paused = true)]
async fn keys_outlive_an_outage_for_a_while() {
    let signer = Signer::p256("k");
    let web = Web::new(&[&signer]);
    let issuers = issuers(&web, &[config("")]);
    let (known, fresh) = (token(&signer), token(&signer.nameless()));
    assert_eq!(fault(&issuers, &known).await, None);
    for broken in [Err("down"), Ok("<html>".to_owned()), Ok(r#"{"keys":[]}"#.to_owned())] {
        web.answers(broken);
        sleep(Duration::from_hours(1)).await;
        assert!(issuers.remembered(known.as_bytes()).is_some());
        assert_eq!(fault(&issuers, &fresh).await, None);
    }
    sleep(Duration::from_hours(24)).await;
    assert!(issuers.remembered(known.as_bytes()).is_none());
    assert_eq!(fault(&issuers, &known).await, Some(Fault::Unavailable));
    web.answers(Ok(set(&[&signer])));
    sleep(Duration::from_secs(31)).await;
    assert_eq!(fault(&issuers, &known).await, None, "and come back by themselves");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_at_the_start() {
    let signer = Signer::p256("k");
    let web = Web::new(&[&signer]);
    web.answers(Err("down"));
    let issuers = issuers(&web, &[config("")]);
    assert_eq!(fault(&issuers, &token(&signer)).await, Some(Fault::Unavailable));
    web.answers(Ok(set(&[&signer])));
    sleep(Duration::from_secs(31)).await;
    assert_eq!(fault(&issuers, &token(&signer)).await, None);
}

#[tokio::test]
async fn a_file_is_read_at_once_and_again_when_it_changes() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keys.json");
    std::fs::write(&path, set(&[&old])).expect("written");
    let config = Config { keys: path.display().to_string(), ..config("") };
    let web = Web::new(&[]);
    let issuers = issuers(&web, std::slice::from_ref(&config));
    let (first, second) = (token(&old), token(&new));
    assert_eq!(fault(&issuers, &first).await, None);
    assert_eq!(fault(&issuers, &second).await, Some(Fault::UnknownKey));
    tokio::time::pause();
    std::fs::write(&path, set(&[&new])).expect("written");
    let mut waited = 0;
    while fault(&issuers, &second).await.is_some() {
        waited += 1;
        assert!(waited < 100, "it was not read again");
        sleep(Duration::from_secs(1)).await;
        // The clock stands still while a thread reads, and only then.
        tokio::task::spawn_blocking(|| ()).await.expect("a thread");
    }
    assert!(issuers.remembered(first.as_bytes()).is_none());
    assert_eq!(web.asked(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keys.json");
    let refused = || {
        let config = Config { keys: path.display().to_string(), ..config("") };
        let web = Arc::new(Web::new(&[]));
        Issuers::new(&limits(), &[config], web, &mut Registry::default()).expect_err("refused").to_string()
    };
    assert!(refused().contains("keys.json") && refused().contains("idp"), "{}", refused());
    std::fs::write(&path, "x".repeat(70_000)).expect("written");
    assert!(refused().contains("too large"), "{}", refused());
}

#[tokio::test(start_paused = true)]
async fn others_take_their_place() {
    let signer = Signer::p256("k");
    let web = Web::new(&[&signer]);
    let issuers = issuers(&web, &[]);
    let copy = issuers.clone();
    let token = token(&signer);
    assert_eq!((fault(&copy, &token).await, copy.is_empty()), (Some(Fault::UnknownIssuer), true));
    issuers.replace(&limits(), &[config("")]).expect("issuers");
    assert_eq!((fault(&copy, &token).await, copy.is_empty(), copy.have_roles()), (None, false, false));
    issuers.replace(&limits(), &[config("")]).expect("issuers");
    assert!(copy.remembered(token.as_bytes()).is_some(), "the same are the same");
    // Its keys are kept with other rules, and no longer what was said under the ones before.
    web.answers(Err("down"));
    issuers.replace(&limits(), &[config("roles = { a = 'read' }")]).expect("issuers");
    assert!(copy.remembered(token.as_bytes()).is_none() && copy.have_roles());
    assert_eq!(copy.verified(token.as_bytes()).await.expect("taken").role, Some(crate::jwt::Role::Read));
    assert_eq!(web.asked(), 1);
    issuers.replace(&limits(), &[]).expect("none");
    assert_eq!(fault(&copy, &token).await, Some(Fault::UnknownIssuer));
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_where_it_changes_how_they_are_had() {
    let signer = Signer::p256("k");
    let web = Web::new(&[&signer]);
    let issuers = issuers(&web, &[config("")]);
    assert_eq!(fault(&issuers, &token(&signer)).await, None);
    web.answers(Err("down"));
    issuers.replace(&limits(), &[config("refresh = '1m'")]).expect("issuers");
    assert_eq!(fault(&issuers, &token(&signer)).await, None, "another refresh");
    let limits = Limits { remembered_bytes_max: ByteSize::kib(64), ..limits() };
    issuers.replace(&limits, &[config("refresh = '1m'")]).expect("issuers");
    assert_eq!(fault(&issuers, &token(&signer)).await, None, "other bounds");
    let elsewhere = Config { keys: "https://idp.example/others".to_owned(), ..config("") };
    issuers.replace(&limits, &[elsewhere]).expect("issuers");
    assert_eq!(fault(&issuers, &token(&signer)).await, Some(Fault::Unavailable), "those of another place are others");
}

#[tokio::test]
async fn files_are_read_anew_whatever_has_changed() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keys.json");
    std::fs::write(&path, set(&[&old])).expect("written");
    let with = |toml: &str| [Config { keys: path.display().to_string(), ..config(toml) }];
    let issuers = issuers(&Web::new(&[]), &with(""));
    let first = token(&old);
    assert_eq!(fault(&issuers, &first).await, None);
    issuers.replace(&limits(), &with("")).expect("issuers");
    assert!(issuers.remembered(first.as_bytes()).is_some(), "the same keys");
    std::fs::write(&path, "nothing").expect("written");
    for toml in ["", "roles = { a = 'read' }"] {
        assert!(issuers.read(&limits(), &with(toml)).is_err(), "{toml:?}");
    }
    std::fs::write(&path, set(&[&new])).expect("written");
    let read = issuers.read(&limits(), &with("")).expect("issuers");
    assert_eq!(fault(&issuers, &first).await, None, "nothing is taken over yet");
    issuers.take(read);
    assert_eq!(fault(&issuers, &first).await, Some(Fault::UnknownKey));
    assert_eq!(fault(&issuers, &token(&new)).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let signer = Signer::secret("k", &[7; 32]);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keys.json");
    std::fs::write(&path, set(&[&signer])).expect("written");
    let config = Config { keys: path.display().to_string(), ..config("algorithms = ['HS256']") };
    let web = Web::new(&[]);
    let issuers = issuers(&web, &[]);
    let limits = Limits { remembered_bytes_max: ByteSize::kib(64), ..limits() };
    issuers.replace(&limits, &[config]).expect("issuers");
    for number in 0..2000 {
        let mut claims = claims();
        claims["sub"] = json!(number.to_string());
        assert_eq!(fault(&issuers, &signer.sign(&claims)).await, None);
    }
    let remembered = issuers.0.state.load().remembered.len();
    assert!((1..=200).contains(&remembered), "{remembered}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(token in prop::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let issuers = issuers(&Web::new(&[]), &[config("")]);
            prop_assert!(issuers.remembered(&token).is_none());
            prop_assert!(issuers.verified(&token).await.is_err());
            Ok(())
        })?;
    }
}
