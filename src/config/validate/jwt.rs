//! `[jwt]` and `[[issuer]]`.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use http::Uri;

use super::{
    finding::{Finding, Table},
    is_loopback,
};
use crate::{
    config::{Config, key_path::KeyPath},
    jwt::{self, Algorithm},
};

/// Bounds of all issuers.
pub(super) fn limits(limits: &jwt::Limits) -> Vec<Finding> {
    let mut table = Table::new("jwt");
    // Header fields of clients are no longer than this either.
    if !(256..=64 << 10).contains(&limits.token_bytes_max.as_u64()) {
        table.add("token_bytes_max", "must be 256B to 64KiB");
    }
    table.some_bytes("remembered_bytes_max", limits.remembered_bytes_max);
    if !(1 << 10..=16 << 20).contains(&limits.keys_bytes_max.as_u64()) {
        table.add("keys_bytes_max", "must be 1KiB to 16MiB");
    }
    table.within("keys_max", limits.keys_max as u64, 1..=1000);
    table.within("keys_tried_max", limits.keys_tried_max as u64, 1..=1000);
    if !(Duration::from_millis(100)..=Duration::from_mins(1)).contains(&limits.keys_timeout) {
        table.add("keys_timeout", "must be 100ms to 1m");
    }
    if limits.refresh_min < Duration::from_secs(1) {
        table.add("refresh_min", "must be 1s or more");
    }
    table.some_time("keys_max_age", limits.keys_max_age);
    table.findings
}

/// Whose tokens are taken.
pub(super) fn issuers(config: &Config) -> Vec<Finding> {
    let (mut names, mut issuers) = (BTreeSet::new(), BTreeSet::new());
    let each = config.issuer.iter().enumerate().flat_map(|(index, one)| {
        let (new_name, new_issuer) = (names.insert(&one.name), issuers.insert(&one.issuer));
        let at = KeyPath::root().key("issuer").index(index);
        let mut found: Vec<Finding> =
            issuer(one, &config.jwt).into_iter().map(|(key, message)| Finding::new(at.key(key), message)).collect();
        if !new_name {
            found.push(Finding::new(at.key("name"), "the name of another issuer"));
        }
        if !new_issuer {
            found.push(Finding::new(at.key("issuer"), "that of another issuer: tokens could be of either"));
        }
        found
    });
    each.collect()
}

/// What is wrong with one, by key.
fn issuer(one: &jwt::Config, limits: &jwt::Limits) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut check = |is_right: bool, key: &'static str, message: &str| {
        if !is_right {
            found.push((key, message.to_owned()));
        }
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let name = one.name.as_bytes();
    check(
        (1..=64).contains(&name.len()) && one.name.bytes().all(is_plain),
        "name",
        "1 to 64 letters, digits, `.`, `_`, `-`",
    );
    check(!one.issuer.is_empty(), "issuer", "empty: it is what `iss` of its tokens has to be");
    check(keys_are_somewhere(one), "keys", KEYS);
    let for_somebody = !one.audiences.is_empty() && one.audiences.iter().all(|one| !one.is_empty());
    check(for_somebody, "audiences", "empty: tokens for anybody else would be taken (RFC 8725 section 3.9)");
    check(!one.algorithms.is_empty(), "algorithms", "empty: no token could be right");
    let shared = one.algorithms.iter().any(|one| is_shared(*one));
    check(!(shared && one.is_remote()), "algorithms", "HS256, HS384 and HS512 need a secret, which belongs in a file");
    check(one.leeway <= Duration::from_mins(5), "leeway", "must be 5m or less");
    check(!one.name_claim.is_empty(), "name_claim", "empty: it names a claim");
    check(!one.roles_claim.is_empty(), "roles_claim", "empty: it names a claim");
    let in_bounds = (limits.refresh_min..=limits.keys_max_age).contains(&one.refresh);
    check(in_bounds, "refresh", "must be jwt.refresh_min to jwt.keys_max_age");
    found
}

const KEYS: &str = "a file, an https:// URL, or an http:// URL of this machine: keys that anybody on the way can change \
                    are nobody's (and no user name in it)";

fn keys_are_somewhere(one: &jwt::Config) -> bool {
    if !one.keys.contains("://") {
        return !one.keys.is_empty();
    }
    let Ok(uri) = one.keys.parse::<Uri>() else { return false };
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => !has_user,
        (Some("http"), Some(host)) => !has_user && is_this_machine(host),
        _ => false,
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(is_loopback)
}

fn is_shared(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'idp'\nissuer = 'https://idp.example'\nkeys = '/keys.json'\naudiences = ['larder']\n";

    fn found(toml: &str) -> Vec<String> {
        match Config::parse("test", toml) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn what_an_issuer_needs() {
        assert_eq!(found(&format!("[[issuer]]\n{GOOD}roles = {{ a = 'read', b = 'operate' }}")), [""; 0]);
        let wrong = |key: &str, value: &str| {
            let kept: String =
                GOOD.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
            let said = found(&format!("[[issuer]]\n{kept}{key} = {value}\n")).join("\n");
            assert!(said.contains(&format!("issuer[0].{key}")), "{key} = {value}: {said}");
        };
        for (key, value) in [
            ("name", "''"),
            ("name", "'a/b'"),
            ("issuer", "''"),
            ("audiences", "[]"),
            ("audiences", "['a', '']"),
            ("keys", "''"),
            ("keys", "'http://idp.example/keys'"),
            ("keys", "'https://user:hush@idp.example/keys'"),
            ("keys", "'ftp://idp.example/keys'"),
            ("algorithms", "[]"),
            ("algorithms", "['none']"),
            ("leeway", "'1h'"),
            ("name_claim", "''"),
            ("roles_claim", "''"),
            ("refresh", "'1s'"),
            ("refresh", "'30days'"),
            ("roles", "{ a = 'root' }"),
        ] {
            wrong(key, value);
        }
    }

    #[test]
    fn keys_from_the_network_are_public_and_come_safely() {
        let with = |keys: &str, more: &str| {
            found(&format!("[[issuer]]\n{}keys = '{keys}'\n{more}", GOOD.replace("keys = '/keys.json'\n", "")))
        };
        for keys in ["https://idp.example/keys", "http://127.0.0.1:8080/keys", "http://[::1]/keys", "http://localhost/"]
        {
            assert_eq!(with(keys, ""), [""; 0], "{keys}");
        }
        assert_eq!(with("/keys.json", "algorithms = ['HS256']"), [""; 0]);
        assert!(with("https://idp.example/keys", "algorithms = ['HS256']").join("\n").contains("algorithms"));
    }

    #[test]
    fn two_of_a_kind_are_told() {
        let said = found(&format!("[[issuer]]\n{GOOD}[[issuer]]\n{GOOD}")).join("\n");
        assert!(said.contains("issuer[1].name") && said.contains("issuer[1].issuer"), "{said}");
    }

    #[test]
    fn one_with_roles_guards_the_admin_plane() {
        let open = "listen.admin = '0.0.0.0:8081'\n";
        assert!(!found(open).is_empty());
        assert!(!found(&format!("{open}[[issuer]]\n{GOOD}")).is_empty());
        assert_eq!(found(&format!("{open}[[issuer]]\n{GOOD}roles = {{ a = 'read' }}")), [""; 0]);
    }
}
