//! What is sent to a provider of models through the forward proxy is its route's: whoever calls by base URL and whoever
//! calls through `HTTPS_PROXY` share settings, answers and accounts.

use std::sync::Arc;

use http::uri::PathAndQuery;

use super::{
    proxied::ProxyRoute,
    routes::{Matcher, RouteTable},
};
use crate::object::path::normalise_path;

/// Routes that lead to models, by where they lead.
pub(super) struct Behind {
    /// Those whose requests need no host of their own.
    routes: Vec<(Matcher, Arc<ProxyRoute>)>,
}

/// A request as the route's own clients would send it.
pub(super) struct Aliased<'a> {
    pub(super) route: &'a Arc<ProxyRoute>,
    /// The matcher of the route.
    pub(super) matcher: &'a Matcher,
    /// Path and query.
    pub(super) target: PathAndQuery,
}

impl Behind {
    /// Of `routes`, and behind them `unreached`: those that other routes leave no requests to.
    pub(super) fn new(routes: &RouteTable<Arc<ProxyRoute>>, unreached: &RouteTable<Arc<ProxyRoute>>) -> Self {
        let leads = |(matcher, route): &(&Matcher, &Arc<ProxyRoute>)| {
            route.cache.models.is_some() && matcher.takes_every_host()
        };
        let kept = routes.iter().chain(unreached.iter()).filter(leads);
        Self { routes: kept.map(|(matcher, route)| (matcher.clone(), Arc::clone(route))).collect() }
    }

    /// The first route that leads to that path of that origin, whose authority is normalised.
    pub(super) fn find(&self, scheme: &str, authority: &str, path: &str, query: Option<&str>) -> Option<Aliased<'_>> {
        self.routes.iter().find_map(|(matcher, route)| {
            let mut target = route.path_to(scheme, authority, path)?;
            if let Some(query) = query {
                target.push('?');
                target.push_str(query);
            }
            let target: PathAndQuery = target.parse().ok()?;
            let leads = matcher.matches(authority, &normalise_path(target.path()));
            leads.then_some(Aliased { route, matcher, target })
        })
    }
}
