//! From a purge to the calls that an API takes for it.

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, uri::PathAndQuery};
use serde_json::{Value, json};

use super::config::{Config, Kind};
use crate::proxy::purge::{PurgeRequest, Receipt};

/// Things one call to Cloudflare may name.
const CLOUDFLARE_MAX: usize = 30;

/// Keys one call to Fastly may name.
const FASTLY_MAX: usize = 256;

/// Bytes of them: Fastly takes header fields of 16 KiB.
const FASTLY_BYTES_MAX: usize = 15 << 10;

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const SOFT_PURGE: HeaderName = HeaderName::from_static("fastly-soft-purge");
const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");
const SIGNATURE: HeaderName = HeaderName::from_static("x-larder-signature");

/// One `POST`.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is made of a purge.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) calls: Vec<Call>,
    /// How many things it named that the API has no word for.
    pub(super) left_out: usize,
}

/// Makes calls for one API.
pub(super) struct Caller {
    kind: Kind,
    /// Zone or service.
    of: String,
    /// Of a `json` call.
    path: PathAndQuery,
    /// What all calls carry.
    headers: HeaderMap,
    key: Option<hmac::Key>,
}

impl Caller {
    /// As configured; `None`: the token cannot be sent.
    pub(super) fn new(config: &Config, token: &str, path: PathAndQuery) -> Option<Self> {
        let mut headers = HeaderMap::new();
        let secret = |text: String| {
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        match config.kind {
            Kind::Fastly => {
                headers.insert(FASTLY_KEY, secret(token.to_owned())?);
                headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            }
            _ if !token.is_empty() => {
                headers.insert(header::AUTHORIZATION, secret(format!("Bearer {token}"))?);
            }
            _ => {}
        }
        let of = if config.kind == Kind::Cloudflare { &config.zone } else { &config.service };
        let key = (!config.secret.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, config.secret.as_bytes()));
        Some(Self { kind: config.kind, of: of.clone(), path, headers, key })
    }

    /// The calls for a purge.
    pub(super) fn calls(&self, request: &PurgeRequest, receipt: &Receipt) -> Calls {
        let mut made = Calls::default();
        match self.kind {
            Kind::Cloudflare => self.cloudflare(request, &mut made),
            Kind::Fastly => self.fastly(request, &mut made),
            Kind::Json => self.json(request, receipt, &mut made),
        }
        made
    }

    /// There is no soft purge there: it is a hard one, which costs the CDN a request to this gateway.
    fn cloudflare(&self, request: &PurgeRequest, made: &mut Calls) {
        let mut call = |body: &Value| {
            let path = PathAndQuery::try_from(format!("/client/v4/zones/{}/purge_cache", self.of));
            made.calls.extend(path.ok().map(|path| self.call_json(path, body)));
        };
        if request.all {
            call(&json!({"purge_everything": true}));
        }
        let prefixes: Vec<String> = request.prefixes.iter().map(|prefix| without_scheme(prefix).to_owned()).collect();
        let lists =
            [("files", &request.urls), ("tags", &request.tags), ("prefixes", &prefixes), ("hosts", &request.hosts)];
        for (name, list) in lists {
            list.chunks(CLOUDFLARE_MAX).for_each(|some| call(&json!({ name: some })));
        }
        made.left_out += request.keys.len();
    }

    fn fastly(&self, request: &PurgeRequest, made: &mut Calls) {
        let mut headers = self.headers.clone();
        if request.soft {
            headers.insert(SOFT_PURGE, HeaderValue::from_static("1"));
        }
        let call = |path: String, tags: Option<HeaderValue>| {
            let mut headers = headers.clone();
            headers.extend(tags.map(|tags| (SURROGATE_KEY, tags)));
            Some(Call { path: PathAndQuery::try_from(path).ok()?, headers, body: Bytes::new() })
        };
        if request.all {
            made.calls.extend(call(format!("/service/{}/purge_all", self.of), None));
        }
        // A key there has no blanks.
        let (tags, other): (Vec<&str>, Vec<&str>) =
            request.tags.iter().map(String::as_str).partition(|tag| tag.bytes().all(|byte| byte.is_ascii_graphic()));
        for some in batches(&tags) {
            let tags = HeaderValue::try_from(some.join(" ")).ok();
            made.calls.extend(call(format!("/service/{}/purge", self.of), tags));
        }
        for url in &request.urls {
            let called = call(format!("/purge/{}", without_scheme(url)), None);
            made.left_out += usize::from(called.is_none());
            made.calls.extend(called);
        }
        made.left_out += other.len() + request.prefixes.len() + request.hosts.len() + request.keys.len();
    }

    fn json(&self, request: &PurgeRequest, receipt: &Receipt, made: &mut Calls) {
        let mut call = self.call_json(self.path.clone(), &json!({"purge": request, "receipt": receipt}));
        if let Some(key) = &self.key {
            let signature = hmac::sign(key, &call.body);
            let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            call.headers.extend(HeaderValue::try_from(format!("sha256={hex}")).ok().map(|value| (SIGNATURE, value)));
        }
        made.calls.push(call);
    }

    fn call_json(&self, path: PathAndQuery, body: &Value) -> Call {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Call { path, headers, body: Bytes::from(body.to_string()) }
    }
}

/// As many as a call may name, and a field can hold.
fn batches<'a>(tags: &[&'a str]) -> Vec<Vec<&'a str>> {
    let (mut batches, mut bytes) = (Vec::<Vec<&str>>::new(), 0);
    for tag in tags {
        bytes += tag.len() + 1;
        match batches.last_mut() {
            Some(last) if last.len() < FASTLY_MAX && bytes <= FASTLY_BYTES_MAX => last.push(tag),
            _ => {
                batches.push(vec![tag]);
                bytes = tag.len() + 1;
            }
        }
    }
    batches
}

fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(toml: &str) -> Caller {
        let config: Config = toml_edit::de::from_str(toml).expect("a webhook");
        let path = PathAndQuery::from_static("/hook?a=1");
        Caller::new(&config, &config.token, path).expect("a token that can be sent")
    }

    fn request(json: Value) -> PurgeRequest {
        serde_json::from_value(json).expect("a purge request")
    }

    fn receipt() -> Receipt {
        let json = json!({"id": "i", "seq": 1, "mode": "hard", "scopes": 1, "ack": "log", "duration_ms": 0.5});
        serde_json::from_value(json).expect("a receipt")
    }

    #[test]
    fn cloudflare_takes_thirty_at_a_time() {
        let caller = caller("name = 'a'\nkind = 'cloudflare'\nzone = 'z'\ntoken = 't'");
        let tags: Vec<String> = (0..31).map(|number| format!("tag-{number}")).collect();
        let named = json!({"tags": tags, "prefixes": ["http://a.example/p"], "keys": ["0".repeat(64)]});
        let made = caller.calls(&request(named), &receipt());
        let bodies: Vec<Value> =
            made.calls.iter().map(|call| serde_json::from_slice(&call.body).expect("JSON")).collect();
        let expected = [json!({"tags": tags[..30]}), json!({"tags": tags[30..]}), json!({"prefixes": ["a.example/p"]})];
        assert_eq!(bodies, expected);
        assert_eq!(made.left_out, 1);
        assert!(made.calls.iter().all(|call| call.path == "/client/v4/zones/z/purge_cache"));
        assert_eq!(made.calls[0].headers[header::AUTHORIZATION], "Bearer t");
        let all = caller.calls(&request(json!({"all": true})), &receipt());
        assert_eq!(all.calls[0].body, r#"{"purge_everything":true}"#);
    }

    #[test]
    fn fastly_takes_keys_and_urls() {
        let caller = caller("name = 'a'\nkind = 'fastly'\nservice = 's'\ntoken = 't'");
        let named = json!({"tags": ["a", "b c", "d"], "urls": ["http://h/x?y=1"], "hosts": ["h"], "soft": true});
        let made = caller.calls(&request(named), &receipt());
        let paths: Vec<&str> = made.calls.iter().map(|call| call.path.as_str()).collect();
        assert_eq!((paths, made.left_out), (vec!["/service/s/purge", "/purge/h/x?y=1"], 2));
        assert_eq!(made.calls[0].headers[SURROGATE_KEY], "a d");
        assert!(made.calls.iter().all(|call| call.headers[SOFT_PURGE] == "1" && call.headers[FASTLY_KEY] == "t"));
        let all = caller.calls(&request(json!({"all": true})), &receipt());
        assert_eq!(all.calls[0].path, "/service/s/purge_all");
    }

    #[test]
    fn fastly_takes_as_many_keys_as_a_field_holds() {
        let short: Vec<String> = (0..257).map(|number| number.to_string()).collect();
        let short: Vec<&str> = short.iter().map(String::as_str).collect();
        assert_eq!(batches(&short).iter().map(Vec::len).collect::<Vec<_>>(), [256, 1]);
        let long = "x".repeat(1024);
        let sizes: Vec<usize> = batches(&[&long[..]; 20]).iter().map(Vec::len).collect();
        assert_eq!(sizes, [14, 6]);
    }

    #[test]
    fn json_is_signed() {
        let caller = caller("name = 'a'\nkind = 'json'\nurl = 'http://h/hook'\nsecret = 'key'");
        let made = caller.calls(&request(json!({"tags": ["a"]})), &receipt());
        let call = &made.calls[0];
        assert_eq!(call.path, "/hook?a=1");
        let said: Value = serde_json::from_slice(&call.body).expect("JSON");
        assert_eq!((&said["purge"]["tags"], &said["receipt"]["id"]), (&json!(["a"]), &json!("i")));
        let signature = call.headers[SIGNATURE].to_str().expect("text").strip_prefix("sha256=").expect("of this kind");
        let bytes: Vec<u8> =
            (0..64).step_by(2).map(|at| u8::from_str_radix(&signature[at..at + 2], 16).expect("hex")).collect();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), &call.body, &bytes)
            .expect("the signature of the body");
    }
}
