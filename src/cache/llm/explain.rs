//! What a call to a model asks, told to who wonders.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Asking, Models};
use crate::{
    cache::{Cache, call::Answer, explain::KeyPart, route::Route, target::Target},
    llm::{
        endpoint::Endpoint,
        outline::Difference,
        question::{Asked, Question, Why},
    },
    object::key::Key,
};

const MISS: HeaderName = HeaderName::from_static("x-larder-miss");

/// Differences that fit into a field.
const TOLD_MAX: usize = 5;

/// A call to a model, as far as it decides.
pub(in crate::cache) struct Explained {
    pub(in crate::cache) key: Key,
    pub(in crate::cache) parts: Vec<KeyPart>,
    /// Why it passes, if it does.
    pub(in crate::cache) why: Option<Why>,
    pub(in crate::cache) differences: Option<Vec<Difference>>,
}

impl Cache {
    /// What a call asks, and where it differs from the most similar one that was answered lately. An error says why it
    /// passes whatever it asks.
    pub(in crate::cache) fn explain_model(
        &self,
        route: &Route,
        models: &Models,
        target: &Target,
        (method, headers, body): (&Method, &HeaderMap, &[u8]),
    ) -> Result<Explained, Why> {
        let path = models.path(&target.path);
        let endpoint = Endpoint::of(models.settings.protocol, method, path).ok_or(Why::OtherCall)?;
        let (query, tenant) = (target.query.as_deref(), target.tenant());
        let asked = Asked { endpoint, path, query, tenant, fields: headers, body };
        let question = models.settings.question(&asked, 0)?;
        let place = (route, method, headers, target.query.as_deref());
        let key = self.model_key(models, place, path, &question, None);
        let outline = models.settings.outline(&question, path, body);
        let differences = self.misses().compared(&self.scope_of(&question), &outline);
        Ok(Explained { key, parts: parts(&question, models, path, tenant), why: question.lifetime.err(), differences })
    }

    /// Remembers a call that was not answered from here; and tells who asked for it where it differs from one that was.
    pub(super) fn told_of_miss(
        &self,
        mut answer: Answer,
        asking: &Asking,
        path: &str,
        body: &Bytes,
        tell: bool,
    ) -> Answer {
        let outline = asking.models.settings.outline(&asking.question, path, body);
        let scope = self.scope_of(&asking.question);
        if tell {
            let differences = self.misses().compared(&scope, &outline);
            let told = differences.map_or("no other call of this scope is known".to_owned(), |all| {
                let first: Vec<_> = all.iter().take(TOLD_MAX).map(ToString::to_string).collect();
                if first.is_empty() { "as before".to_owned() } else { first.join(", ") }
            });
            if let Ok(value) = HeaderValue::from_str(&told.escape_default().to_string()) {
                answer.response.headers_mut().insert(MISS, value);
            }
        }
        self.misses().remember(scope, outline);
        answer
    }

    pub(super) fn scope_of(&self, question: &Question) -> [u8; 32] {
        *blake3::keyed_hash(self.secret(), &question.scope).as_bytes()
    }
}

/// What a key is made of, without a word of what was asked.
fn parts(question: &Question, models: &Models, path: &str, tenant: Option<&str>) -> Vec<KeyPart> {
    let part = |name: &str, value: String| KeyPart { name: name.to_owned(), value: Some(value) };
    let scope = match tenant {
        _ if question.scope.is_empty() => "everybody".to_owned(),
        Some(tenant) => format!("tenant {tenant}, and a keyed hash of the credential it brings"),
        None => "a keyed hash of the credential".to_owned(),
    };
    let mut parts =
        vec![part("scope", scope), part("upstream", models.upstream.to_string()), part("path", path.to_owned())];
    let texts = ["namespace", "representation", "anthropic-version", "anthropic-beta", "openai-beta"];
    parts.extend(question.parts.iter().map(|(name, bytes)| match texts.contains(name) {
        true => part(name, String::from_utf8_lossy(bytes).into_owned()),
        false if bytes.is_empty() => KeyPart { name: (*name).to_owned(), value: None },
        false => part(name, format!("{}…", &blake3::hash(bytes).to_hex()[..16])),
    }));
    parts
}

/// Whether a request asks why it is not answered from here.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    headers.contains_key("x-larder-explain")
}
