//! What the cache knows of a route: its policy in the form the decisions need.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    Cache,
    config::{Mode, Policy, Query},
    llm::Models,
};
use crate::object::{
    forwarded,
    names::Names,
    scope::Scope,
    vary::{Comparing, Vary},
    verdict::{RuleMode, Rules},
};

/// Whose responses are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partition {
    /// Nobody's: what is storable is shared.
    None,
    /// By the value of a request field (a credential, a tenant's name).
    Field(HeaderName),
}

/// Header fields set and removed on responses before they are stored.
#[derive(Debug, Clone, Default)]
pub struct ResponseRules {
    /// Set, replacing what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
}

/// Fields that the gateway itself writes.
#[derive(Debug, Clone, Default)]
pub struct OwnFields {
    /// The one in which it gives each request an id of its own.
    pub request_id: Option<HeaderName>,
    /// Those it writes into every answer, in the place of the origin's, which are therefore not kept.
    pub answers: Vec<HeaderName>,
}

/// A route as the cache sees it.
#[derive(Debug)]
pub struct Route {
    /// Name; part of every key.
    pub name: Arc<str>,
    /// The identity its URLs share whatever authority a client names; `None` where the authority decides.
    pub site: Option<Arc<str>>,
    /// The scope of that site.
    pub(super) site_scope: Option<Scope>,
    /// As configured.
    pub policy: Policy,
    /// See [`ResponseRules`].
    pub response: ResponseRules,
    /// See [`Partition`].
    pub partition: Partition,
    /// Whether responses to tenants are kept apart as well.
    pub by_tenant: bool,
    /// What decides on storing.
    pub rules: Rules,
    pub(super) tag_fields: Names,
    pub(super) key_headers: Box<[HeaderName]>,
    /// Fields that carry tags and are kept from clients.
    hidden: Names,
    /// Fields that the gateway writes into every answer.
    written: Names,
    own: OwnFields,
    methods: Methods,
    /// What holds for calls to models, where the route is for them.
    pub models: Option<Arc<Models>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Methods {
    get: bool,
    head: bool,
    query: bool,
    post: bool,
}

/// How a request takes part in caching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// GET: answered from the cache, stored.
    Get,
    /// HEAD: answered from what GET stored.
    Head,
    /// QUERY (RFC 10008), and POST where the route says so: the body is part of the key.
    WithBody,
    /// Not answered from the cache.
    Other,
}

impl Class {
    /// As explanations call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::WithBody => "with-body",
            Self::Other => "other",
        }
    }
}

impl Cache {
    /// How requests are compared in the fields a response of this route varies by.
    pub(super) fn comparing(&self, route: &Route) -> Comparing<'_> {
        Comparing { secret: self.secret(), normalise: route.policy.vary_normalise }
    }
}

impl Route {
    /// From a policy that the configuration has validated.
    pub fn new(name: &str, site: Option<Arc<str>>, policy: Policy, response: ResponseRules, own: OwnFields) -> Self {
        let names = |list: &[String]| list.iter().filter_map(|name| name.parse().ok()).collect::<Vec<HeaderName>>();
        let tag_fields = names(&policy.tag_fields);
        Self {
            hidden: hidden(&policy, &tag_fields),
            name: name.into(),
            site_scope: site.as_deref().map(Scope::site),
            site,
            response,
            partition: partition(&policy.partition),
            by_tenant: false,
            rules: rules(&policy),
            tag_fields: tag_fields.into_iter().collect(),
            key_headers: names(&policy.key_headers).into(),
            methods: methods(&policy.methods),
            written: own.answers.iter().cloned().collect(),
            own,
            policy,
            models: None,
        }
    }

    /// The same, where requests are of tenants: they share nothing, unless the policy says that all share.
    #[must_use]
    pub fn with_tenants(self) -> Self {
        Self { by_tenant: self.policy.partition != "none", ..self }
    }

    /// The same, for calls to models.
    #[must_use]
    pub fn with_models(self, models: Models) -> Self {
        Self { models: Some(Arc::new(models)), ..self }
    }

    /// How a request with this method takes part in caching.
    pub fn class(&self, method: &Method) -> Class {
        match *method {
            Method::GET if self.methods.get => Class::Get,
            Method::HEAD if self.methods.head => Class::Head,
            Method::POST if self.methods.post => Class::WithBody,
            ref other if self.methods.query && other.as_str() == "QUERY" => Class::WithBody,
            _ => Class::Other,
        }
    }

    /// Whether a response field is kept from clients.
    pub(super) fn hides(&self, name: &HeaderName) -> bool {
        self.hidden.contains(name)
    }

    /// Whether a tier keeps a response field of that name.
    pub(super) fn keeps(&self, name: &HeaderName) -> bool {
        *name != header::AGE && !self.written.contains(name) && !self.hides(name)
    }

    pub(super) fn hidden(&self) -> &Names {
        &self.hidden
    }

    /// The query of a request as keys and the scopes of URLs hold it.
    pub fn key_query<'a>(&self, query: Option<&'a str>) -> Option<Cow<'a, str>> {
        let query = query?;
        match self.policy.query {
            Query::AsSent => Some(Cow::Borrowed(query)),
            Query::Ignore => None,
            // Where every argument was left out, what is left is no query.
            Query::Sorted => {
                let left = sorted(query, &self.policy.query_without);
                (!left.is_empty()).then_some(Cow::Owned(left))
            }
        }
    }

    /// What a response depends on beside its key. One that depends on what the gateway tells the origin of each client
    /// or request depends on anything: the next request will not say the same.
    pub(super) fn vary(&self, response: &HeaderMap) -> Vary {
        let vary = Vary::of(response);
        let is_own = |name: &HeaderName| {
            *name == forwarded::FOR || *name == header::FORWARDED || self.own.request_id.as_ref() == Some(name)
        };
        if vary.fields().iter().any(is_own) { Vary::Any } else { vary }
    }

    pub(super) fn bypass(&self) -> bool {
        self.policy.mode == Mode::Bypass
    }

    /// Whether the response to a request with these fields is kept apart from others'. Without the field that tells
    /// whose it is, it is everybody's. That of a tenant is for all who have its key, so what is meant for one client is not
    /// stored for it either.
    pub(super) fn partitions(&self, request: &HeaderMap) -> bool {
        match &self.partition {
            Partition::None => false,
            Partition::Field(name) => request.get(name).is_some_and(|value| !value.is_empty()),
        }
    }

    /// Whether one URL can have several keys, variants and request content aside.
    pub(super) fn keys_hold_more(&self) -> bool {
        self.by_tenant
            || self.partition != Partition::None
            || !self.key_headers.is_empty()
            || !self.policy.key_cookies.is_empty()
    }

    pub(super) fn object_bytes_max(&self) -> u64 {
        self.policy.object_bytes_max.as_u64()
    }

    pub(super) fn hit_for_miss_ttl(&self) -> Duration {
        self.policy.hit_for_miss_ttl
    }
}

fn hidden(policy: &Policy, tag_fields: &[HeaderName]) -> Names {
    // `Cache-Groups` is meant for every cache on the way (RFC 9875).
    let hidden = |name: &&HeaderName| policy.tag_fields_hidden && **name != "cache-groups";
    tag_fields.iter().filter(hidden).cloned().collect()
}

/// Arguments in order of their bytes, without those `without` names (`utm_*` covers a prefix).
fn sorted(query: &str, without: &[String]) -> String {
    let unwanted = |argument: &str| {
        let name = argument.split('=').next().unwrap_or_default();
        without.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        })
    };
    let mut arguments: Vec<&str> =
        query.split('&').filter(|argument| !argument.is_empty() && !unwanted(argument)).collect();
    arguments.sort_unstable();
    arguments.join("&")
}

fn partition(text: &str) -> Partition {
    match text {
        "authorization" => Partition::Field(header::AUTHORIZATION),
        _ => match text.strip_prefix("header:").and_then(|name| name.parse().ok()) {
            Some(name) => Partition::Field(name),
            None => Partition::None,
        },
    }
}

fn methods(list: &[String]) -> Methods {
    let has = |name: &str| list.iter().any(|method| method == name);
    Methods { get: has("GET"), head: has("HEAD"), query: has("QUERY"), post: has("POST") }
}

fn rules(policy: &Policy) -> Rules {
    Rules {
        mode: if policy.mode == Mode::Force { RuleMode::Force } else { RuleMode::Standard },
        default_ttl: policy.default_ttl,
        ttl_max: policy.ttl_max,
        heuristic_fraction: policy.heuristic_fraction,
        heuristic_max: policy.heuristic_max,
        status_ttl: policy.status_ttl.clone(),
        stale_while_revalidate: policy.stale_while_revalidate,
        stale_if_error: policy.stale_if_error,
        keep: policy.keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_queries_meet() {
        let without = ["utm_*".to_owned(), "fbclid".to_owned()];
        assert_eq!(sorted("b=2&a=1", &without), "a=1&b=2");
        assert_eq!(sorted("utm_source=x&a=1&fbclid=y&&", &without), "a=1");
        assert_eq!(sorted("fbclid2=1", &without), "fbclid2=1");
    }
}
