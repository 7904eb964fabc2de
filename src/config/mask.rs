//! Which settings are secrets, and a configuration without them.

use figment::value::{Dict, Value};

use super::key_path::{KeyPath, Step};

/// What stands for a secret.
const MASK: &str = "***";

/// Parts of the names of fields that carry secrets: Authorization, Cookie, X-Api-Key, X-Auth-Token, ...
const SECRET_NAMES: [&str; 6] = ["auth", "cookie", "key", "token", "secret", "password"];

/// Whether a header field of this name may carry a secret.
pub(super) fn is_secret_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Whether a statement of a configuration file may hold one: by its words, or as a URL with a password.
pub(super) fn may_hold_secret(statement: &str) -> bool {
    is_secret_field(statement) || (statement.contains("://") && statement.contains('@'))
}

/// Whether `path` leads to one: a token of the admin plane, a key of a tenant, a field a route sets, the key of an
/// embedder, what a webhook shows or signs with, or what Redis wants to be told.
pub(super) fn is_secret(path: &KeyPath) -> bool {
    let keys: Vec<_> = path.steps().iter().filter_map(Step::as_key).collect();
    match keys[..] {
        ["admin", .., last] => last == "token",
        ["tenant", last] => last == "keys",
        ["webhook", last] => last == "token" || last == "secret",
        [.., "semantic", last] => last == "api_key",
        ["trace", "headers", name] => is_secret_field(name),
        ["l2", last] => last == "password" || last == "url",
        ["headers", "request_set" | "response_set", name] => is_secret_field(name),
        _ => false,
    }
}

/// Replaces every secret of a configuration.
pub(super) fn mask(mut settings: Dict) -> Dict {
    if let Some(Value::Dict(_, admin)) = settings.get_mut("admin") {
        mask_value(admin.get_mut("token"));
        for token in elements(admin.get_mut("tokens")) {
            mask_value(token.get_mut("token"));
        }
    }
    if let Some(Value::Dict(_, l2)) = settings.get_mut("l2") {
        mask_value(l2.get_mut("password"));
        mask_urls(l2.get_mut("url"));
    }
    for tenant in elements(settings.get_mut("tenant")) {
        if let Some(Value::Array(_, keys)) = tenant.get_mut("keys") {
            keys.iter_mut().for_each(|key| mask_value(Some(key)));
        }
    }
    for webhook in elements(settings.get_mut("webhook")) {
        mask_value(webhook.get_mut("token"));
        mask_value(webhook.get_mut("secret"));
        mask_urls(webhook.get_mut("url"));
    }
    mask_embedder(settings.get_mut("llm"));
    for route in elements(settings.get_mut("route")) {
        mask_embedder(route.get_mut("llm"));
        let Some(Value::Dict(_, headers)) = route.get_mut("headers") else { continue };
        for rules in ["request_set", "response_set"] {
            let Some(Value::Dict(_, fields)) = headers.get_mut(rules) else { continue };
            fields.iter_mut().filter(|(name, _)| is_secret_field(name)).for_each(|(_, value)| mask_value(Some(value)));
        }
    }
    settings
}

/// The key in `[llm.semantic]`, or in what a route makes of it.
fn mask_embedder(llm: Option<&mut Value>) {
    let Some(Value::Dict(_, llm)) = llm else { return };
    if let Some(Value::Dict(_, semantic)) = llm.get_mut("semantic") {
        mask_value(semantic.get_mut("api_key"));
    }
}

/// The passwords in URLs.
fn mask_urls(urls: Option<&mut Value>) {
    match urls {
        Some(Value::Array(_, urls)) => urls.iter_mut().for_each(|url| mask_urls(Some(url))),
        Some(url) => {
            if let Some(masked) = url.as_str().and_then(masked_url) {
                *url = Value::from(masked);
            }
        }
        None => {}
    }
}

/// The same URL without its password; `None`: it has none.
fn masked_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    // What precedes the last of them belongs to the password, if somebody forgot to escape it.
    let (user, rest) = rest.rsplit_once('@')?;
    let (user, _) = user.split_once(':')?;
    Some(format!("{scheme}://{user}:{MASK}@{rest}"))
}

fn elements(list: Option<&mut Value>) -> impl Iterator<Item = &mut Dict> {
    let elements = match list {
        Some(Value::Array(_, elements)) => &mut elements[..],
        _ => &mut [],
    };
    elements.iter_mut().filter_map(|element| match element {
        Value::Dict(_, dict) => Some(dict),
        _ => None,
    })
}

fn mask_value(value: Option<&mut Value>) {
    if let Some(value) = value.filter(|value| value.as_str() != Some("")) {
        *value = Value::from(MASK);
    }
}
