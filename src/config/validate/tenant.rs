//! Checks of tenants, and of whom routes answer.

use std::collections::{BTreeSet, HashSet};

use super::finding::{Finding, Table};
use crate::{
    config::{Config, key_path::KeyPath, route::ResolvedRoute, schema},
    jwt,
    llm::config::{Mode, Scope},
    tenants::{self, Access, Clients, Digest, KEY_BYTES_MIN},
};

/// Most tenants that metrics may tell apart beside those that are configured.
const NAMES_MAX: usize = 10_000;

/// Names that logs and metrics use for what is no tenant.
const RESERVED_NAMES: [&str; 2] = ["none", "other"];

/// `[access]`, or what a route makes of it.
pub(in crate::config) fn access(access: &Access) -> Vec<Finding> {
    let mut table = Table::new("access");
    table.field_names("fields", &access.fields);
    if access.fields.is_empty() && access.clients == Clients::Tenants {
        table.add("fields", "without any field nobody can show a key");
    }
    table.within("names_max", access.names_max, 0..=NAMES_MAX);
    table.findings
}

/// `[[tenant]]`, whose subjects are of `issuers`.
pub(in crate::config) fn tenants(tenants: &[tenants::Config], issuers: &[jwt::Config]) -> Vec<Finding> {
    let (mut found, mut names, mut known) = (Vec::new(), BTreeSet::new(), Known::default());
    for (index, tenant) in tenants.iter().enumerate() {
        let at = KeyPath::root().key("tenant").index(index);
        let mut add = |path: KeyPath, message: &str| found.push(Finding::new(path, message));
        if !is_name(&tenant.name) {
            add(at.key("name"), "a name is 1 to 64 letters, digits, `.`, `_`, `-`, and neither \"none\" nor \"other\"");
        } else if !names.insert(&tenant.name) {
            add(at.key("name"), "another tenant has this name");
        }
        if tenant.keys.is_empty() && tenant.key_hashes.is_empty() && tenant.subjects.is_empty() {
            add(at.key("keys"), "nobody could be this tenant: give keys, key_hashes or subjects");
        }
        // Messages do not repeat keys.
        for (nth, key) in tenant.keys.iter().enumerate() {
            if let Some(message) = known.problem_of_key(key) {
                add(at.key("keys").index(nth), message);
            }
        }
        for (nth, hash) in tenant.key_hashes.iter().enumerate() {
            match hash.parse::<Digest>() {
                Err(error) => add(at.key("key_hashes").index(nth), &error.to_string()),
                Ok(digest) if !known.digests.insert(digest) => add(at.key("key_hashes").index(nth), TWICE),
                Ok(_) => {}
            }
        }
        for (nth, subject) in tenant.subjects.iter().enumerate() {
            if let Some(message) = known.problem_of_subject(subject, issuers) {
                add(at.key("subjects").index(nth), &message);
            }
        }
    }
    found
}

const TWICE: &str = "this key is listed before, here or with another tenant";

/// What the tenants before have.
#[derive(Default)]
struct Known {
    digests: HashSet<Digest>,
    subjects: BTreeSet<String>,
}

impl Known {
    fn problem_of_key(&mut self, key: &str) -> Option<&'static str> {
        if key.len() < KEY_BYTES_MIN {
            return Some("a key has 16 bytes or more, so that it cannot be guessed: `larder key` makes one");
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some("a key has no blanks and nothing but ASCII");
        }
        (!self.digests.insert(Digest::of(key.as_bytes()))).then_some(TWICE)
    }

    /// Whoever is meant by a subject that is nobody's would be a tenant by himself, who may use all routes.
    fn problem_of_subject(&mut self, subject: &str, issuers: &[jwt::Config]) -> Option<String> {
        let parts = subject.split_once('/').filter(|(issuer, name)| !issuer.is_empty() && !name.is_empty());
        let Some((issuer, _)) = parts else {
            let message = "a subject is an issuer's name, `/`, and a name in its tokens, or `*` for all of them";
            return Some(message.to_owned());
        };
        let twice = || {
            let is_new = self.subjects.insert(subject.to_owned());
            (!is_new).then(|| "listed before, here or with another tenant".to_owned())
        };
        problem_of_issuer(issuer, issuers).or_else(twice)
    }
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(known) && !RESERVED_NAMES.contains(&name)
}

/// Whether the routes that tenants may use are there.
pub(in crate::config) fn used_routes(tenants: &[tenants::Config], routes: &[ResolvedRoute]) -> Vec<Finding> {
    // The forward proxy is one of them.
    let names = || routes.iter().map(|resolved| resolved.route.name.as_str()).chain(["forward"]);
    let mut found = Vec::new();
    for (index, tenant) in tenants.iter().enumerate() {
        for (nth, name) in tenant.routes.iter().enumerate().filter(|(_, name)| !names().any(|known| known == *name)) {
            let meant = schema::nearest(name, names()).map(|meant| format!("; did you mean {meant:?}?"));
            let message = format!("there is no route {name:?}{}", meant.unwrap_or_default());
            found.push(Finding::new(KeyPath::root().key("tenant").index(index).key("routes").index(nth), message));
        }
    }
    found
}

/// Whether the issuers that routes name are there; in `[access]` too, which no route may use.
pub(in crate::config) fn used_issuers(access: &Access, issuers: &[jwt::Config]) -> Vec<Finding> {
    let mut table = Table::new("access");
    for (nth, name) in access.issuers.iter().enumerate() {
        if let Some(message) = problem_of_issuer(name, issuers) {
            table.add_at("issuers", nth, message);
        }
    }
    table.findings
}

fn problem_of_issuer(name: &str, issuers: &[jwt::Config]) -> Option<String> {
    let names = || issuers.iter().map(|issuer| issuer.name.as_str());
    if names().any(|known| known == name) {
        return None;
    }
    let meant = schema::nearest(name, names()).map(|meant| format!("; did you mean {meant:?}?"));
    Some(format!("there is no [[issuer]] {name:?}{}", meant.unwrap_or_default()))
}

/// Whether a pack, which does not know whose a call is, would answer one tenant what another was told, and no setting
/// says that they share. Where the forward proxy asks (`proxy_asks`), who comes through it is of a tenant on every route.
pub(in crate::config) fn packed(resolved: &ResolvedRoute, proxy_asks: bool) -> Vec<Finding> {
    let ResolvedRoute { route, access, llm, .. } = resolved;
    let has_pack = route.protocol.model().is_some() && llm.mode != Mode::Cache;
    let has_tenants = proxy_asks || access.clients == Clients::Tenants;
    if !has_pack || !has_tenants || llm.scope == Scope::Shared {
        return Vec::new();
    }
    let mut table = Table::new("llm");
    let message =
        "a pack knows no tenants, so all of them would share its answers: scope = \"shared\" says that they may";
    table.add_either("mode", "scope", message);
    table.findings
}

/// What is allowed, and surely not meant.
pub(in crate::config) fn lint_access(config: &Config, routes: &[ResolvedRoute]) -> Vec<Finding> {
    let mut found = Vec::new();
    let asks = |access: &Access| access.clients == Clients::Tenants;
    let proxy_asks = config.forward.clients_auth == Clients::Tenants;
    if asks(&config.access) || proxy_asks || routes.iter().any(|resolved| asks(&resolved.access)) {
        let takes_tokens = routes.iter().any(|resolved| !resolved.access.issuers.is_empty());
        if config.tenant.is_empty() && !takes_tokens {
            let path = KeyPath::root().key("access").key("clients");
            found.push(Finding::new(path, "keys of tenants are asked for, and there is no [[tenant]]"));
        }
    } else if !config.tenant.is_empty() {
        let path = KeyPath::root().key("tenant");
        found.push(Finding::new(path, "no route asks for a key (access.clients), so anybody is answered"));
    }
    found
}
