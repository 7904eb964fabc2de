//! Loading as users meet it: precedence, places of errors, routes, secrets.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;

use super::*;
use crate::{cache::config::Mode, proxy::config::OneOrMany, telemetry::config::Format};

fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parse(text: &str) -> Config {
    Config::parse("test.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> Vec<String> {
    match Config::parse("test.toml", text) {
        Ok(_) => panic!("it was let through"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn refuses(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected);
}

fn warnings(text: &str) -> Vec<String> {
    parse(text).warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_are_valid() {
    let config = Config::builtin();
    assert_eq!(config.warnings(), []);
    let built_in: Vec<_> = config.routes().iter().map(|resolved| resolved.route.name.as_str()).collect();
    assert_eq!(built_in, config.providers.routes);
    assert!(config.listen.data.ip().is_loopback() && config.listen.admin.ip().is_loopback());
    assert_eq!(config.origin.tls_ca_file, None);
    assert_eq!(config.l1.max_bytes, ByteSize::mib(512));
}

/// All that speak a protocol of which the cache knows more than HTTP.
#[test]
fn providers_of_models_are_intercepted() {
    let hosts = crate::llm::provider::PROVIDERS.iter().filter(|provider| provider.protocol.is_some());
    let hosts: Vec<_> = hosts.map(|provider| provider.host().replace("{}", "*")).collect();
    assert_eq!(Config::builtin().intercept.hosts, hosts);
}

#[test]
fn what_is_intercepted_has_a_name() {
    refuses(
        "[intercept]\nhosts = ['a.example', '127.0.0.1', '*.b.example', '*']\nports = [0]\ncertificates_max = 0\n\
         certificate_lifetime = '1m'\n",
        &[
            "test.toml:2:23: intercept.hosts[1]: \"127.0.0.1\" is not a host to intercept: `api.example`, or \
             `*.example` for every name below it; no address and no port",
            "test.toml:2:51: intercept.hosts[3]: \"*\" is not a host to intercept: `api.example`, or `*.example` for \
             every name below it; no address and no port",
            "test.toml:3:10: intercept.ports[0]: 0 is no port",
            "test.toml:4:20: intercept.certificates_max: 0 is not within 1 to 100000",
            "test.toml:5:24: intercept.certificate_lifetime: must be 1h to 397days",
        ],
    );
    assert_eq!(
        warnings("[intercept]\nports = [443, 8443]\n"),
        ["test.toml:2:9: intercept.ports: CONNECT to port 8443 is not allowed (forward.connect_ports)"],
    );
    assert!(warnings("[forward]\nconnect_ports = [8443]\n").is_empty());
}

/// Settings shown as comments in the manual begin right behind the `#`, prose behind a blank.
#[test]
fn the_examples_of_the_manual_are_valid() {
    let uncommented: String = schema::DEFAULTS
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with([' ', '-'])).unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let config = parse(&uncommented);
    assert_eq!(config.warnings(), []);
    let route = &config.routes()[0];
    let shown: Vec<_> = uncommented[uncommented.find("[[route]]").expect("an example")..]
        .lines()
        .filter_map(|line| {
            line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')).map(|(key, _)| key.to_owned())
        })
        .collect();
    let known: Vec<_> = schema::route().keys().collect();
    assert!(known.iter().all(|key| shown.contains(key)), "{known:?} and {shown:?}");
    let Some(schema::Kind::Tables(limit)) = schema::root().get("limit") else { panic!("a list of tables") };
    assert!(limit.keys().all(|key| shown.contains(key)), "{shown:?}");
    assert_eq!(config.limit[0].rate().burst(), 20);
    assert_eq!(route.cache.default_ttl, Duration::from_secs(300));
}

#[test]
fn the_example_is_valid() {
    let config = parse(include_str!("../../config/example.toml"));
    assert_eq!(config.warnings(), []);
    assert_eq!(config.routes().len(), 3 + config.providers.routes.len());
    assert_eq!(config.routes()[0].cache.mode, Mode::Force);
    assert_eq!(config.routes()[1].origin.connections_max, 64);
}

#[test]
fn later_sources_win() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("larder.toml");
    let text = "data_dir = \"/file\"\n[l1]\nmax_bytes = \"1MiB\"\npolicy = \"lru\"\n[listen]\ndata = \"127.0.0.1:1\"\n";
    fs::write(&file, text).expect("written");
    let overrides =
        Overrides { listen: Some("127.0.0.1:3".to_owned()), log: Some("json".to_owned()), ..Overrides::default() };
    let variables =
        [("LARDER_L1__MAX_BYTES", "2MiB"), ("LARDER_LISTEN__DATA", "127.0.0.1:2"), ("LARDER_DATA_DIR", "/env")];
    let config = load(&Sources { file: Some(file), env: env(&variables), overrides }).expect("valid");
    assert_eq!(config.l1.max_bytes, ByteSize::mib(2));
    assert_eq!(config.l1.policy, store::config::EvictionPolicy::Lru);
    assert_eq!(config.listen.data.port(), 3);
    assert_eq!(config.log.format, Format::Json);
    assert_eq!(config.data_path(), Path::new("/env"));
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let error = load(&Sources { file: Some(PathBuf::from("/nowhere/larder.toml")), ..Sources::default() });
    let error = error.expect_err("no file").to_string();
    assert!(error.starts_with("/nowhere/larder.toml: cannot be read: "), "{error}");
}

#[test]
fn everything_wrong_is_told_at_once_with_its_place() {
    refuses(
        r#"
data_dirr = "/x"
[l1]
max_byte = "1GiB"
policy = "fifo"
[cache]
ttl_max = "soon"
methods = ["GET", "PATCH"]
ttl_jitter = 0.7
client_gone = 1
[cache.status_ttl]
40x = "1s"
[[route]]
name = "api"
upstream = "http://127.0.0.1:9000"
cache = { default_tll = "1m", mode = "forced" }
  [route.origin]
  retries = 11
  max_bytes = "1GiB"
[[route]]
upstream = "ftp://h"
hots = "x"
"#,
        &[
            "test.toml:2:1: data_dirr: unknown key; did you mean `data_dir`?",
            "test.toml:4:1: l1.max_byte: unknown key; did you mean `max_bytes`?",
            "test.toml:5:10: l1.policy: \"fifo\" is none of \"s3-fifo\", \"lru\", \"lfu\"",
            "test.toml:7:11: cache.ttl_max: expected a duration such as \"30s\", found string \"soon\"",
            "test.toml:8:19: cache.methods[1]: \"PATCH\" is none of GET, HEAD, QUERY, POST",
            "test.toml:9:14: cache.ttl_jitter: 0.7 is not within 0 to 0.5",
            "test.toml:10:15: cache.client_gone: expected a text, found signed int `1`",
            "test.toml:12:7: cache.status_ttl.40x: not a final status (\"404\") or a class of them (\"5xx\")",
            "test.toml:16:11: route[\"api\"].cache.default_tll: unknown key; did you mean `default_ttl`?",
            "test.toml:16:38: route[\"api\"].cache.mode: \"forced\" is none of \"standard\", \"bypass\", \"force\"; did you mean \"force\"?",
            "test.toml:18:13: route[\"api\"].origin.retries: 11 is not within 0 to 10",
            "test.toml:19:3: route[\"api\"].origin.max_bytes: unknown key; did you mean `l1.max_bytes`?",
            "test.toml:20:1: route[1]: `name` is missing",
            "test.toml:22:1: route[1].hots: unknown key; did you mean `host`?",
        ],
    );
}

#[test]
fn variables_and_flags_are_named() {
    let overrides = Overrides {
        listen: Some("nowhere".to_owned()),
        upstream: vec!["http://ok".to_owned(), "http://u:secret@h".to_owned()],
        ..Overrides::default()
    };
    let env = env(&[("LARDER_CACHE__TTL_MAX", "soon"), ("LARDER_L1__OBJECT_SHARE_MAX", "2")]);
    let errors = load(&Sources { file: None, env, overrides }).expect_err("wrong");
    assert_eq!(
        errors.to_string(),
        "LARDER_CACHE__TTL_MAX: cache.ttl_max: expected a duration such as \"30s\", found string \"soon\"\n\
         LARDER_L1__OBJECT_SHARE_MAX: l1.object_share_max: 2 is not above 0.0 and up to 1.0\n\
         --listen: listen.data: expected an address such as \"127.0.0.1:8080\", found string \"nowhere\"\n\
         --upstream: route[\"default\"].upstream[1]: an upstream has no user and password; set Authorization in headers.request_set"
    );
}

#[test]
fn syntax_errors_keep_their_place() {
    let errors = errors("[l1]\nmax_bytes = 1GiB\n");
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("test.toml:2:"), "{}", errors[0]);
    assert!(errors[0].contains("| max_bytes = 1GiB"), "{}", errors[0]);
}

#[test]
fn values_of_the_wrong_kind() {
    for (text, expected) in [
        (
            "[listen]\ndata = 80",
            "test.toml:2:8: listen.data: expected an address such as \"127.0.0.1:8080\", found signed int `80`",
        ),
        (
            "[l1]\nmax_bytes = \"big\"",
            "test.toml:2:13: l1.max_bytes: expected a size such as \"64KiB\", found string \"big\"",
        ),
        (
            "[l1]\nmax_bytes = -1",
            "test.toml:2:13: l1.max_bytes: expected a size such as \"64KiB\", found signed int `-1`",
        ),
        (
            "[forward]\nclients = [\"::1/128\", \"lan\"]",
            "test.toml:2:23: forward.clients[1]: expected a network such as \"10.0.0.0/8\", found string \"lan\"",
        ),
        ("[log]\naccess = \"yes\"", "test.toml:2:10: log.access: expected a boolean, found string \"yes\""),
        ("l1 = 5", "test.toml:1:1: l1: expected a table"),
        ("[cache]\nstatus_ttl = \"1s\"", "test.toml:2:1: cache.status_ttl: expected a table"),
        (
            "[cache]\nstatus_ttl = { 404 = 10 }",
            "test.toml:2:22: cache.status_ttl.404: expected a duration such as \"30s\", found signed int `10`",
        ),
        ("[cache]\nttl_jitter = nan", "test.toml:2:14: cache.ttl_jitter: NaN is not within 0 to 0.5"),
    ] {
        refuses(text, &[expected]);
    }
}

#[test]
fn texts_of_digits_are_texts_in_variables() {
    let sources = Sources { env: env(&[("LARDER_ADMIN__TOKEN", "12345")]), ..Sources::default() };
    assert_eq!(load(&sources).expect("valid").admin.token, "12345");
}

#[test]
fn an_upstream_alone_is_a_route_for_the_rest() {
    let overrides = Overrides { upstream: vec!["http://h".to_owned(), "http://i".to_owned()], ..Overrides::default() };
    let routes = r#"[{ name = "api", path = "/api", upstream = "http://j" }]"#;
    let sources = Sources { env: env(&[("LARDER_ROUTE", routes)]), overrides, file: None };
    let config = load(&sources).expect("valid");
    let names: Vec<_> = config.routes().iter().map(|route| &route.route.name[..]).collect();
    assert_eq!(names, ["api", UPSTREAM_ROUTE]);
    assert_eq!(config.route[1].upstream, OneOrMany::Many(vec!["http://h".to_owned(), "http://i".to_owned()]));
    assert!(config.routes()[1].matcher.matches("any", "/"));
}

#[test]
fn routes_override_key_by_key() {
    let config = parse(
        r#"
        [cache]
        default_ttl = "1s"
        status_ttl = { 404 = "1s", 410 = "2s" }
        methods = ["GET"]
        [origin]
        tls_ca_file = "/ca.pem"
        [[route]]
        name = "a"
        upstream = "https://h"
        cache = { status_ttl = { 404 = "5s" }, methods = ["POST"] }
        origin = { tls_ca_file = "", head_timeout = "1s" }
        [[route]]
        name = "b"
        path = "/b"
        upstream = "https://h"
        "#,
    );
    let [a, b] = config.routes() else { panic!("two routes") };
    assert_eq!(a.cache.default_ttl, Duration::from_secs(1));
    assert_eq!(a.cache.status_ttl["404"], Duration::from_secs(5));
    assert_eq!(a.cache.status_ttl["410"], Duration::from_secs(2));
    assert_eq!(a.cache.methods, ["POST"]);
    assert_eq!(a.origin.tls_ca_file, None);
    assert_eq!(a.origin.head_timeout, Duration::from_secs(1));
    assert_eq!(b.cache, config.cache);
    assert_eq!(b.origin, config.origin);
}

#[test]
fn what_is_wrong_in_cache_is_told_once_whatever_routes_there_are() {
    refuses(
        "[cache]\npartition = \"user\"\n[[route]]\nname = \"a\"\nupstream = \"http://h\"\n",
        &[
            "test.toml:2:13: cache.partition: \"user\" is none of \"tenant\", \"none\", \"authorization\", \"header:NAME\"",
        ],
    );
}

#[test]
fn pieces_are_of_some_length() {
    for length in ["1KiB", "17MiB", "0B"] {
        let message = "test.toml:2:15: l2.piece_bytes: must be 64KiB to 16MiB";
        refuses(&format!("[l2]\npiece_bytes = \"{length}\"\n"), &[message]);
    }
    assert_eq!(parse("[l2]\npiece_bytes = \"64KiB\"\n").l2.piece_bytes.as_u64(), 64 << 10);
}

#[test]
fn contradictions_blame_what_was_set() {
    refuses(
        "[l2]\nobject_bytes_max = \"64MiB\"\n",
        &["test.toml:2:20: l2.object_bytes_max: 64.0 MiB is above queue_bytes_max, which is 32.0 MiB"],
    );
    refuses(
        "[warm]\nconcurrency_max = 4\n",
        &["test.toml:2:19: warm.concurrency: 8 is above concurrency_max, which is 4"],
    );
    refuses(
        "[fill]\nmemory_total_bytes_max = \"4MiB\"\n",
        &["test.toml:2:26: fill.memory_bytes_max: 8.0 MiB is above memory_total_bytes_max, which is 4.0 MiB"],
    );
    refuses(
        "[cache]\nquery = \"sorted\"\nquery_without = [\"a\"]\n[[route]]\nname = \"a\"\nupstream = \"http://h\"\n\
         cache = { query = \"ignore\" }\n",
        &["test.toml:7:19: route[\"a\"].cache.query_without: needs query = \"sorted\""],
    );
}

#[test]
fn an_admin_plane_on_the_network_needs_a_token() {
    let open = "[listen]\nadmin = \"0.0.0.0:8081\"\n";
    refuses(
        open,
        &[
            "test.toml:2:9: listen.admin: 0.0.0.0:8081 is not on loopback, so admin.token, admin.tokens or an issuer with roles is needed",
        ],
    );
    parse(&format!("{open}[admin]\ntoken = \"t\"\n"));
    parse(&format!("{open}[[admin.tokens]]\nname = \"n\"\ntoken = \"t\"\nscope = \"read\"\n"));
    parse("[listen]\nadmin = \"[::ffff:127.0.0.1]:8081\"\n");
}

#[test]
fn tokens_are_checked_one_by_one_and_never_shown() {
    refuses(
        "[[admin.tokens]]\nname = \"n\"\ntoken = \"hush hush\"\nscope = \"read\"\n\
         [[admin.tokens]]\nname = \"n\"\ntoken = \"x\"\nscope = \"purge\"\n",
        &[
            "test.toml:3:9: admin.tokens[0].token: a token is not empty, has no blanks and nothing but ASCII",
            "test.toml:6:8: admin.tokens[1].name: empty, or the name of another token",
        ],
    );
    refuses(
        "[admin]\ntokens = [{ name = \"n\", token = \"x\", scope = \"root\" }]\n",
        &["test.toml:2:46: admin.tokens[0].scope: \"root\" is none of \"read\", \"purge\", \"operate\""],
    );
    refuses(
        "[admin]\ntoken = 4711\n[[admin.tokens]]\nname = \"n\"\nscop = \"read\"\n",
        &[
            "test.toml:2:9: admin.token: expected a text",
            "test.toml:3:1: admin.tokens[0]: `token` is missing",
            "test.toml:5:1: admin.tokens[0].scop: unknown key; did you mean `scope`?",
        ],
    );
}

#[test]
fn routes_are_checked() {
    let route = |settings: &str| format!("[[route]]\nname = \"a\"\n{settings}\n");
    for (settings, expected) in [
        ("upstream = \"h:1\"", "test.toml:3:12: route[\"a\"].upstream: not a URL such as http://127.0.0.1:9000"),
        (
            "upstream = \"http://h?q\"",
            "test.toml:3:12: route[\"a\"].upstream: an upstream has no query and no fragment",
        ),
        (
            "upstream = \"ws://h\"",
            "test.toml:3:12: route[\"a\"].upstream: the scheme of an upstream is http, https or h2c",
        ),
        ("upstream = []", "test.toml:3:12: route[\"a\"].upstream: at least one URL is needed"),
        ("upstream = 1", "test.toml:3:12: route[\"a\"].upstream: expected a text or a list of texts"),
        ("", "test.toml:1:1: route[\"a\"]: `upstream` is missing"),
        ("upstream = \"http://h\"\npath = \"a\"", "test.toml:4:8: route[\"a\"].path: a path begins with `/`"),
        (
            "upstream = \"http://h\"\nhost = \"*\"",
            "test.toml:4:8: route[\"a\"].host: a route for any host has no `host` at all",
        ),
        (
            "upstream = \"http://h\"\nheaders.request_set.Host = \"x\"",
            "test.toml:4:28: route[\"a\"].headers.request_set.Host: use host_header for Host",
        ),
        (
            "upstream = \"http://h\"\nheaders = { response_remove = [\"a\", \"TE\"] }",
            "test.toml:4:37: route[\"a\"].headers.response_remove[1]: TE is up to the gateway, which frames messages on both sides",
        ),
    ] {
        refuses(&route(settings), &[expected]);
    }
    refuses(
        &format!("{0}{0}", "[[route]]\nname = \"a\"\nupstream = \"http://h\"\n"),
        &["test.toml:5:8: route[\"a\"].name: another route has this name"],
    );
    refuses(
        "[[route]]\nname = \"forward\"\nupstream = \"h2c://h\"\n",
        &["test.toml:2:8: route[\"forward\"].name: \"forward\" is reserved"],
    );
    refuses("[route]\nname = \"a\"\n", &["test.toml:1:2: route: expected a list of tables: write [[route]]"]);
}

#[test]
fn what_is_surely_not_meant_is_told() {
    let text = "[[route]]\nname = \"a\"\nhost = \"*.example\"\nupstream = \"http://h\"\n\
                [[route]]\nname = \"b\"\nhost = \"shop.example\"\nupstream = \"http://h\"\ncache.mode = \"force\"\n";
    assert_eq!(
        warnings(text),
        [
            "test.toml:9:14: route[\"b\"].cache.mode: \"force\" stores nothing while default_ttl is 0s",
            "test.toml:5:1: route[\"b\"]: never reached: route \"a\" before it takes all its requests",
        ]
    );
    assert_eq!(
        warnings("[cache]\npurge_method = true\n"),
        [
            "test.toml:2:16: cache.purge_method: PURGE asks for a token, and there is none in [admin], and no issuer with roles"
        ]
    );
}

#[test]
fn nothing_can_do_without_connections() {
    refuses(
        "[client]\nconnections_max = 0\n[origin]\nconnections_max = 0\n",
        &[
            "test.toml:2:19: client.connections_max: must be 1 or more",
            "test.toml:4:19: origin.connections_max: must be 1 or more",
        ],
    );
    refuses(
        "[[route]]\nname = \"a\"\nupstream = \"http://h\"\norigin = { connections_max = 0 }\n",
        &["test.toml:4:30: route[\"a\"].origin.connections_max: must be 1 or more"],
    );
}

#[test]
fn secrets_are_masked() {
    let config = parse(
        r#"
        [l1]
        max_bytes = "1500kB"
        [admin]
        token = "hush1"
        tokens = [{ name = "n", token = "hush2", scope = "read" }]
        [l2]
        url = ["redis://me:hush7@h:1", "redis://h:2", "rediss://:hush8@x@h/0"]
        password = "hush9"
        [llm.semantic]
        api_key = "hush5"
        [[webhook]]
        name = "cdn"
        kind = "json"
        url = "http://me:hush10@h/"
        token = "hush11"
        secret = "hush12"
        [[route]]
        name = "a"
        upstream = "http://h"
        llm = { semantic = { api_key = "hush6" } }
        headers = { request_set = { Authorization = "hush3", X-Api-Key = "hush4", X-From = "larder" } }
        "#,
    );
    let shown = config.masked_toml();
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("\"***\"") && shown.contains("\"larder\"") && shown.contains("\"1500kB\""), "{shown}");
    assert!(shown.contains("redis://me:***@h:1") && shown.contains("redis://h:2"), "{shown}");
    assert!(!format!("{config:?}{:?}{:?}{:?}", config.l2, config.routes(), config.webhook).contains("hush"));
    let route = format!("{:?}", config.routes()[0].route);
    assert!(!route.contains("hush") && route.contains("X-Api-Key"), "{route}");
    let again = parse(&shown);
    assert_eq!((again.l1, again.route.len()), (config.l1, 1));
}

#[test]
fn redis_is_named_in_several_ways() {
    let urls = |toml: &str| parse(toml).l2.urls();
    assert_eq!(urls(""), [""; 0]);
    assert_eq!(urls("[l2]\nurl = ''"), [""; 0]);
    assert_eq!(urls("[l2]\nurl = 'redis://h'"), ["redis://h"]);
    assert_eq!(urls("[l2]\nurl = ['redis://h', 'redis://i']"), ["redis://h", "redis://i"]);
    let overrides = Overrides {
        redis: ["redis+sentinel://h", "i:1/master", "redis://j"].map(str::to_owned).to_vec(),
        ..Overrides::default()
    };
    let config = load(&Sources { overrides, ..Sources::default() }).expect("valid");
    assert_eq!(config.l2.urls(), ["redis+sentinel://h,i:1/master", "redis://j"], "parted at each comma by the flag");
    let env = env(&[("LARDER_L2__URL", "redis+sentinel://h,i/master,redis://j")]);
    let config = load(&Sources { env, ..Sources::default() }).expect("valid");
    assert_eq!(config.l2.urls(), ["redis+sentinel://h,i/master", "redis://j"]);
}

#[test]
fn state_is_kept_where_the_system_keeps_it() {
    let path = |variables: &[(&str, &str)]| data_path("", &env(variables));
    assert_eq!(path(&[("XDG_STATE_HOME", "/state"), ("HOME", "/home/a")]), Path::new("/state/larder"));
    assert_eq!(path(&[("XDG_STATE_HOME", "state"), ("HOME", "/home/a")]), Path::new("/home/a/.local/state/larder"));
    assert_eq!(path(&[("HOME", "/")]), Path::new("/var/lib/larder"));
    assert_eq!(path(&[]), Path::new("/var/lib/larder"));
    assert_eq!(data_path("here", &[]), Path::new("here"));
}

#[test]
fn the_guide_shows_valid_files() {
    let guide = include_str!("../../docs/CONFIGURATION.md");
    let examples: Vec<_> = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() > 2);
    for example in examples {
        parse(example);
    }
}
