//! What calls to models cost, and what was saved: tokens, dollars and time, by route and model.

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::due::{Due, Length};
use crate::llm::{
    answer::{Seen, Usage},
    embeddings,
    price::Prices,
};
use crate::tenants::Tenant;

/// What a stored answer cost when it was made: part of it, and sent along.
pub(in crate::cache) const USAGE: HeaderName = HeaderName::from_static("x-larder-usage");
const SAVED_TOKENS: HeaderName = HeaderName::from_static("x-larder-saved-tokens");
const SAVED_USD: HeaderName = HeaderName::from_static("x-larder-saved-usd");

/// Models that are told apart; who asks for still others is counted together, because names come from clients.
const MODELS_MAX: usize = 200;
const OTHERS: &str = "other";

type Dollars = Counter<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Whose {
    route: Arc<str>,
    model: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    route: Arc<str>,
    model: Arc<str>,
    kind: &'static str,
    account: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Calls {
    route: Arc<str>,
    model: Arc<str>,
    account: &'static str,
    form: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Money {
    route: Arc<str>,
    model: Arc<str>,
    account: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantTokens {
    tenant: Arc<str>,
    route: Arc<str>,
    kind: &'static str,
    account: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantMoney {
    tenant: Arc<str>,
    route: Arc<str>,
    account: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unstored {
    route: Arc<str>,
    reason: &'static str,
}

/// All accounts. Copies share them.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    prices: Prices,
    models: Mutex<HashSet<Arc<str>>>,
    calls: Family<Calls, Counter>,
    tokens: Family<Tokens, Counter>,
    dollars: Family<Money, Dollars>,
    seconds: Family<Whose, Dollars>,
    unstored: Family<Unstored, Counter>,
    tenant_tokens: Family<TenantTokens, Counter>,
    tenant_dollars: Family<TenantMoney, Dollars>,
    totals: [Totals; 2],
    saved_millis: AtomicU64,
}

/// Sums of one account.
#[derive(Default)]
struct Totals {
    input: AtomicU64,
    output: AtomicU64,
    /// Millionths of a dollar.
    micros: AtomicU64,
}

/// Figures of calls to models, since the start.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Stats {
    /// Paid to providers.
    pub billed: AccountStats,
    /// Not paid, because answers were stored or shared.
    pub saved: AccountStats,
    /// Time that providers took for what was answered from the cache.
    pub saved_seconds: f64,
}

/// Sums of one account.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AccountStats {
    /// Tokens of requests.
    pub input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Their price, where it is known.
    pub dollars: f64,
}

/// The account of one call.
#[derive(Clone)]
pub(in crate::cache) struct Bill {
    accounts: Accounts,
    route: Arc<str>,
    model: Arc<str>,
    /// What metrics call the tenant, where there is one.
    tenant: Option<Arc<str>>,
    /// Is charged for what was paid for.
    due: Option<Due>,
    receipt: Receipt,
}

/// What one call has cost, once that is known: with its answer's last byte. It goes along with the answer as an extension.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The model that was asked.
    pub model: Arc<str>,
    cost: Arc<OnceLock<Cost>>,
}

/// What a call has cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// `billed` or `saved`.
    pub account: &'static str,
    /// Tokens.
    pub usage: Usage,
    /// Their price, where it is known.
    pub dollars: Option<f64>,
}

impl Receipt {
    /// What it says by now.
    pub fn cost(&self) -> Option<Cost> {
        self.cost.get().copied()
    }
}

impl Accounts {
    /// With these prices.
    pub fn register(prices: Prices, registry: &mut Registry) -> Self {
        let inner = Inner {
            prices,
            models: Mutex::default(),
            calls: Family::default(),
            tokens: Family::default(),
            dollars: Family::default(),
            seconds: Family::default(),
            unstored: Family::default(),
            tenant_tokens: Family::default(),
            tenant_dollars: Family::default(),
            totals: Default::default(),
            saved_millis: AtomicU64::new(0),
        };
        registry.register(
            "llm_calls",
            "calls to models that were answered well, billed or saved, by form (stream, whole)",
            inner.calls.clone(),
        );
        registry.register("llm_tokens", "tokens of calls to models, billed or saved", inner.tokens.clone());
        registry.register("llm_cost_dollars", "price of these tokens, where it is known", inner.dollars.clone());
        registry.register_with_unit(
            "llm_saved",
            "time providers took for what was answered from the cache",
            Unit::Seconds,
            inner.seconds.clone(),
        );
        registry.register(
            "llm_unstored",
            "whole answers of models that were not stored, by reason",
            inner.unstored.clone(),
        );
        registry.register(
            "llm_tenant_tokens",
            "tokens of calls of tenants to models, billed or saved",
            inner.tenant_tokens.clone(),
        );
        registry.register(
            "llm_tenant_cost_dollars",
            "price of the tokens of tenants, where it is known",
            inner.tenant_dollars.clone(),
        );
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn bill(&self, route: &Arc<str>, model: Option<&str>, tenant: Option<&Tenant>) -> Bill {
        let model = self.name(model.unwrap_or(""));
        let receipt = Receipt { model: Arc::clone(&model), cost: Arc::default() };
        let tenant = tenant.map(Tenant::label);
        Bill { accounts: self.clone(), route: Arc::clone(route), model, tenant, due: None, receipt }
    }

    fn name(&self, model: &str) -> Arc<str> {
        let mut models = self.inner.models.lock();
        if let Some(known) = models.get(model) {
            return Arc::clone(known);
        }
        if models.len() >= MODELS_MAX || model.len() > 128 {
            return OTHERS.into();
        }
        let name: Arc<str> = model.into();
        models.insert(Arc::clone(&name));
        name
    }

    /// Figures at this moment.
    pub fn stats(&self) -> Stats {
        let [billed, saved] = &self.inner.totals;
        Stats {
            billed: billed.stats(),
            saved: saved.stats(),
            saved_seconds: Duration::from_millis(self.inner.saved_millis.load(Relaxed)).as_secs_f64(),
        }
    }
}

impl Totals {
    #[expect(clippy::cast_precision_loss, reason = "millionths of dollars fit")]
    fn stats(&self) -> AccountStats {
        AccountStats {
            input_tokens: self.input.load(Relaxed),
            output_tokens: self.output.load(Relaxed),
            dollars: self.micros.load(Relaxed) as f64 / 1e6,
        }
    }
}

/// An account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    Billed,
    Saved,
}

impl Account {
    fn as_str(self) -> &'static str {
        match self {
            Self::Billed => "billed",
            Self::Saved => "saved",
        }
    }
}

impl Bill {
    /// What will say what it cost.
    pub(super) fn receipt(&self) -> Receipt {
        self.receipt.clone()
    }

    /// The same, of which `due` is charged for what was paid for.
    pub(super) fn charged_to(self, due: Option<Due>) -> Self {
        Self { due, ..self }
    }

    /// A call was paid for; so much of its answer has come.
    pub(in crate::cache) fn billed(&self, seen: &Seen, length: Length) {
        self.charged(seen, length);
        let dollars = self.book(Account::Billed, &seen.usage, seen.model.as_deref(), seen.stream, 1);
        self.note(Account::Billed, seen.usage, dollars);
    }

    /// The same for limits alone: nobody could read what the answer tells.
    pub(in crate::cache) fn charged(&self, seen: &Seen, length: Length) {
        if let Some(due) = &self.due {
            due.ended(seen, length);
        }
    }

    /// An answer broke off, or its client left: for limits, what has come of it counts.
    pub(in crate::cache) fn cut_off(&self, usage: &Usage, length: Length) {
        if let Some(due) = &self.due {
            due.cut_off(usage, length);
        }
    }

    fn note(&self, account: Account, usage: Usage, dollars: Option<f64>) {
        let _ = self.receipt.cost.set(Cost { account: account.as_str(), usage, dollars });
    }

    /// So many others got its answer.
    pub(in crate::cache) fn shared(&self, seen: &Seen, others: u64) {
        self.book(Account::Saved, &seen.usage, seen.model.as_deref(), seen.stream, others);
    }

    /// An answer that came whole is not stored.
    pub(in crate::cache) fn unstored(&self, reason: &'static str) {
        let labels = Unstored { route: Arc::clone(&self.route), reason };
        self.accounts.inner.unstored.get_or_create(&labels).inc();
    }

    /// A stored answer was given: its head says what it cost once, and is told what that is worth.
    pub(super) fn saved(&self, fields: &mut HeaderMap) {
        let Some((usage, took)) = fields.get(USAGE).and_then(read) else { return };
        let dollars = self.book(Account::Saved, &usage, None, is_stream(fields), 1);
        self.note(Account::Saved, usage, dollars);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.accounts.inner.saved_millis.fetch_add(millis, Relaxed);
        let whose = Whose { route: Arc::clone(&self.route), model: Arc::clone(&self.model) };
        self.accounts.inner.seconds.get_or_create(&whose).inc_by(took.as_secs_f64());
        fields.insert(SAVED_TOKENS, (usage.input + usage.output).into());
        if let Some(value) = dollars.and_then(|dollars| HeaderValue::from_str(&format!("{dollars:.8}")).ok()) {
            fields.insert(SAVED_USD, value);
        }
    }

    /// As [`Bill::saved`], for an answer put together of several; `usages` tell what each cost.
    pub(super) fn saved_in_parts(&self, usages: impl Iterator<Item = HeaderValue>, fields: &mut HeaderMap) {
        let mut sum: Option<(Usage, Duration)> = None;
        for (usage, took) in usages.filter_map(|value| read(&value)) {
            let (all, longest) = sum.get_or_insert_default();
            all.input += usage.input;
            all.cached += usage.cached;
            all.output += usage.output;
            *longest = took.max(*longest);
        }
        if let Some(value) = sum.and_then(|(usage, took)| usage_field(&usage, took)) {
            fields.insert(USAGE, value);
            self.saved(fields);
        }
    }

    /// Counts it `times`, and tells the price of one.
    fn book(&self, account: Account, usage: &Usage, made_by: Option<&str>, stream: bool, times: u64) -> Option<f64> {
        let inner = &self.accounts.inner;
        if times == 0 {
            return None;
        }
        let totals = &inner.totals[usize::from(account == Account::Saved)];
        totals.input.fetch_add(usage.input.saturating_mul(times), Relaxed);
        totals.output.fetch_add(usage.output.saturating_mul(times), Relaxed);
        let (route, model) = (Arc::clone(&self.route), Arc::clone(&self.model));
        let form = if stream { "stream" } else { "whole" };
        inner.calls.get_or_create(&Calls { route, model, account: account.as_str(), form }).inc_by(times);
        let kinds =
            [("input", usage.input.saturating_sub(usage.cached)), ("cached", usage.cached), ("output", usage.output)];
        for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
            let (route, model) = (Arc::clone(&self.route), Arc::clone(&self.model));
            let labels = Tokens { route, model, kind, account: account.as_str() };
            inner.tokens.get_or_create(&labels).inc_by(count.saturating_mul(times));
            if let Some(tenant) = &self.tenant {
                let (tenant, route) = (Arc::clone(tenant), Arc::clone(&self.route));
                let labels = TenantTokens { tenant, route, kind, account: account.as_str() };
                inner.tenant_tokens.get_or_create(&labels).inc_by(count.saturating_mul(times));
            }
        }
        let price = inner.prices.of(&self.model).or_else(|| inner.prices.of(made_by?))?;
        let one = price.of(usage);
        #[expect(clippy::cast_precision_loss, reason = "as many requests as fit into 52 bits")]
        let all = one * times as f64;
        let labels =
            Money { route: Arc::clone(&self.route), model: Arc::clone(&self.model), account: account.as_str() };
        inner.dollars.get_or_create(&labels).inc_by(all);
        if let Some(tenant) = &self.tenant {
            let (tenant, route) = (Arc::clone(tenant), Arc::clone(&self.route));
            inner.tenant_dollars.get_or_create(&TenantMoney { tenant, route, account: account.as_str() }).inc_by(all);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "prices are bounded and not negative"
        )]
        totals.micros.fetch_add((all * 1e6).round() as u64, Relaxed);
        Some(one)
    }
}

/// Whether an answer with these fields comes as server-sent events.
fn is_stream(fields: &HeaderMap) -> bool {
    fields.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// What an answer cost, as a field of it says.
pub(in crate::cache) fn usage_field(usage: &Usage, took: Duration) -> Option<HeaderValue> {
    let Usage { input, cached, output } = usage;
    let text = format!("input={input}, cached={cached}, output={output}, millis={}", took.as_millis());
    HeaderValue::from_str(&text).ok()
}

fn read(value: &HeaderValue) -> Option<(Usage, Duration)> {
    let text = value.to_str().ok()?;
    let number = |name: &str| {
        let members = text.split(',').filter_map(|member| member.trim().split_once('='));
        members.filter(|(found, _)| *found == name).find_map(|(_, number)| number.parse::<u64>().ok())
    };
    let usage = Usage { input: number("input")?, cached: number("cached")?, output: number("output")? };
    Some((usage, Duration::from_millis(number("millis")?)))
}

/// What the `nth` of `all` parts of an answer cost.
pub(super) fn share(value: &HeaderValue, nth: usize, all: usize) -> Option<HeaderValue> {
    let (usage, took) = read(value)?;
    let of = |count| embeddings::share(count, nth, all);
    usage_field(&Usage { input: of(usage.input), cached: of(usage.cached), output: of(usage.output) }, took)
}

/// How long the provider took.
pub(super) fn millis(value: &HeaderValue) -> Option<Duration> {
    read(value).map(|(_, took)| took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let usage = Usage { input: 12, cached: 3, output: 34 };
        let field = usage_field(&usage, Duration::from_millis(812)).expect("a value");
        assert_eq!(read(&field), Some((usage, Duration::from_millis(812))));
        assert_eq!(read(&HeaderValue::from_static("input=1")), None);
    }

    #[test]
    fn accounts_are_apart_and_models_bounded() {
        let prices = Prices::new(&[("m".to_owned(), "2 in, 4 out".to_owned())].into());
        let accounts = Accounts::register(prices, &mut Registry::default());
        let bill = accounts.bill(&"r".into(), Some("m"), None);
        let usage = Usage { input: 1_000_000, cached: 0, output: 500_000 };
        let seen = Seen { usage, model: None, fit: Ok(()), stream: true };
        bill.billed(&seen, Length::Events(2));
        bill.shared(&seen, 2);
        let stats = accounts.stats();
        assert_eq!((stats.billed.input_tokens, stats.saved.input_tokens), (1_000_000, 2_000_000));
        assert!((stats.billed.dollars - 4.0).abs() < 1e-6 && (stats.saved.dollars - 8.0).abs() < 1e-6);
        let calls = |account, form| {
            let labels = Calls { route: "r".into(), model: "m".into(), account, form };
            accounts.inner.calls.get_or_create(&labels).get()
        };
        assert_eq!([calls("billed", "stream"), calls("saved", "stream"), calls("saved", "whole")], [1, 2, 0]);
        for index in 0..2 * MODELS_MAX {
            accounts.bill(&"r".into(), Some(&index.to_string()), None);
        }
        assert_eq!(accounts.inner.models.lock().len(), MODELS_MAX);
    }
}
