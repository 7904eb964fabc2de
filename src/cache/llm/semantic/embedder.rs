//! Vectors of texts: from an endpoint, or from a model that lies here. Whatever goes wrong with either is no failure of a
//! call; after some failures in a row none is asked for a while.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use model2vec_rs::model::StaticModel;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Error, index};
use crate::{
    llm::semantic::Config,
    origin::{self, OriginRequest, Origins, RequestBody, TargetPolicy, Upstream},
};

/// Largest answer of an endpoint: one vector has some thousand numbers of some twenty characters.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The direction of a text, of length 1.
pub(in crate::cache) type Vector = Arc<[f32]>;

/// Why there is no vector.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoVector {
    #[error("it rests after failures")]
    Resting,
    #[error("it took too long")]
    TimedOut,
    #[error(transparent)]
    Origin(#[from] origin::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("what it answered is no list of one vector")]
    OtherAnswer,
    #[error("the model failed")]
    Model,
    /// Nothing in the text means anything to the model. That is no failure of it.
    #[error("the text has no direction")]
    NoDirection,
}

/// Models in memory: one of a directory, however many routes use it.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    models: Mutex<HashMap<String, StaticModel>>,
}

impl Loaded {
    fn model(&self, directory: &str) -> Result<Source, Error> {
        let mut models = self.models.lock();
        if let Some(model) = models.get(directory) {
            return Ok(Source::Model(model.clone()));
        }
        let model = read(directory)?;
        models.insert(directory.to_owned(), model.clone());
        Ok(Source::Model(model))
    }
}

/// Makes vectors.
pub(super) struct Embedder {
    source: Source,
    timeout: Duration,
    failures_max: u32,
    rest: Duration,
    failing: Mutex<Failing>,
}

/// Failures in a row, and until when nothing is asked.
#[derive(Default)]
struct Failing {
    failures: u32,
    until: Option<Instant>,
}

enum Source {
    Endpoint { upstream: Upstream, path: PathAndQuery, model: Box<str>, authorization: Option<HeaderValue> },
    Model(StaticModel),
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    embedding: Vec<f32>,
}

impl Embedder {
    /// As configured; `origin` says how an endpoint is reached.
    pub(super) fn new(config: &Config, origin: &origin::Config, loaded: &Loaded) -> Result<Self, Error> {
        let source = if config.url.is_empty() { loaded.model(&config.model_dir)? } else { endpoint(config, origin)? };
        let Config { timeout, failures_max, rest, .. } = *config;
        Ok(Self { source, timeout, failures_max, rest, failing: Mutex::default() })
    }

    /// The vector of a text.
    pub(super) async fn vector(&self, origins: &Origins, text: &str) -> Result<Vector, NoVector> {
        if self.failing.lock().until.is_some_and(|until| Instant::now() < until) {
            return Err(NoVector::Resting);
        }
        let asking = tokio::time::timeout(self.timeout, self.ask(origins, text));
        let vector = asking.await.unwrap_or(Err(NoVector::TimedOut));
        self.note(vector.as_ref().err());
        vector
    }

    fn note(&self, error: Option<&NoVector>) {
        let mut failing = self.failing.lock();
        let Some(error) = error.filter(|error| !matches!(error, NoVector::NoDirection)) else {
            *failing = Failing::default();
            return;
        };
        tracing::debug!(%error, "no vector of a text");
        failing.failures += 1;
        if failing.failures >= self.failures_max {
            // Warned of once: while it goes on, each attempt after a rest is one more of the same.
            if failing.until.is_none() {
                tracing::warn!(%error, "the embedder rests: similar calls are not looked for");
            }
            failing.until = Some(Instant::now() + self.rest);
        }
    }

    async fn ask(&self, origins: &Origins, text: &str) -> Result<Vector, NoVector> {
        let vector = match &self.source {
            Source::Endpoint { upstream, path, model, authorization } => {
                let request = request(path, model, authorization.as_ref(), text);
                let response = origins.send(upstream, request).await?;
                if response.status != StatusCode::OK {
                    return Err(NoVector::Status(response.status));
                }
                let body = Limited::new(response.body, ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|_| NoVector::OtherAnswer)?.to_bytes();
                let listed: Listed = serde_json::from_slice(&body).map_err(|_| NoVector::OtherAnswer)?;
                let [Embedding { embedding }] = <[_; 1]>::try_from(listed.data).map_err(|_| NoVector::OtherAnswer)?;
                embedding
            }
            Source::Model(model) => {
                let (model, text) = (model.clone(), text.to_owned());
                let made = tokio::task::spawn_blocking(move || model.encode_with_args(&[text], None, 1));
                made.await.map_err(|_| NoVector::Model)?.pop().ok_or(NoVector::Model)?
            }
        };
        index::normalised(vector).map(Vector::from).ok_or(NoVector::NoDirection)
    }
}

fn request(path: &PathAndQuery, model: &str, authorization: Option<&HeaderValue>, text: &str) -> OriginRequest {
    let body = serde_json::json!({ "model": model, "input": text, "encoding_format": "float" }).to_string();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    OriginRequest {
        method: Method::POST,
        path_and_query: path.clone(),
        host: None,
        headers,
        body: RequestBody::Bytes(Bytes::from(body)),
        interim: None,
        upgrade: false,
    }
}

fn endpoint(config: &Config, origin: &origin::Config) -> Result<Source, Error> {
    let uri: Uri = config.url.parse().map_err(|_| Error::Url)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(Error::Url) };
    let origin = origin::Config {
        connect_timeout: origin.connect_timeout.min(config.timeout),
        head_timeout: config.timeout,
        body_idle_timeout: config.timeout,
        queue_timeout: origin.queue_timeout.min(config.timeout),
        ..origin.clone()
    };
    // The operator's own word: wherever it leads is meant.
    let upstream = Upstream::new(&[format!("{scheme}://{authority}")], origin, TargetPolicy::Any)?;
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let authorization = (!config.api_key.is_empty()).then(|| {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", config.api_key.reveal())).map_err(|_| Error::Key)?;
        value.set_sensitive(true);
        Ok::<_, Error>(value)
    });
    Ok(Source::Endpoint {
        upstream,
        path,
        model: config.model.as_str().into(),
        authorization: authorization.transpose()?,
    })
}

fn read(directory: &str) -> Result<StaticModel, Error> {
    let failed = |reason: String| Error::Model { directory: directory.to_owned(), reason };
    let read =
        |name: &str| std::fs::read(Path::new(directory).join(name)).map_err(|error| failed(format!("{name}: {error}")));
    let (tokenizer, weights, config) = (read("tokenizer.json")?, read("model.safetensors")?, read("config.json")?);
    let model = StaticModel::from_bytes(tokenizer, weights, config, None);
    model.map_err(|error| failed(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::config;

    /// A model of four words in three dimensions, in the files its makers publish.
    fn write_model(directory: &Path) {
        let vocabulary = ["[PAD]", "[UNK]", "warm", "hot", "cold", "tea"];
        let vocabulary: serde_json::Map<_, _> =
            vocabulary.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null,
            "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
            "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary },
        });
        let rows: [[f32; 3]; 6] =
            [[0.0; 3], [0.0; 3], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.1], [0.0, 0.2, 1.0]];
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|one| one.to_le_bytes()).collect();
        // The format: the length of a head, the head, the numbers.
        let head = format!(r#"{{"embeddings":{{"dtype":"F32","shape":[6,3],"data_offsets":[0,{}]}}}}"#, bytes.len());
        let tensors = [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &bytes].concat();
        for (name, content) in [
            ("tokenizer.json", tokenizer.to_string().into_bytes()),
            ("model.safetensors", tensors),
            ("config.json", br#"{"normalize":true}"#.to_vec()),
        ] {
            std::fs::write(directory.join(name), content).expect("a writable directory");
        }
    }

    fn settings(directory: &Path) -> Config {
        let text = format!("[llm.semantic]\nmode = \"on\"\nmodel_dir = {:?}\n", directory.display().to_string());
        config::Config::parse("test", &text).expect("valid").llm.semantic
    }

    #[tokio::test]
    async fn a_model_that_lies_here() {
        let directory = tempfile::tempdir().expect("a directory");
        write_model(directory.path());
        let origin = config::Config::builtin().origin;
        let embedder = Embedder::new(&settings(directory.path()), &origin, &Loaded::default()).expect("a model");
        let origins = Origins::new(&mut Registry::default());
        let [hot, warm, cold] = ["Hot tea", "warm tea", "cold tea"];
        let vector = |text| embedder.vector(&origins, text);
        let hot = vector(hot).await.expect("a vector");
        let near = index::cosine(&hot, &vector(warm).await.expect("a vector"));
        let far = index::cosine(&hot, &vector(cold).await.expect("a vector"));
        assert!(near > 0.95 && far < 0.5, "{near} {far}");
        assert!(matches!(vector("unheard of").await, Err(NoVector::NoDirection)));
    }

    #[test]
    fn a_model_that_is_none_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let origin = config::Config::builtin().origin;
        let error = Embedder::new(&settings(directory.path()), &origin, &Loaded::default())
            .err()
            .expect("no model")
            .to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
        write_model(directory.path());
        std::fs::write(directory.path().join("model.safetensors"), b"damaged").expect("a file");
        assert!(Embedder::new(&settings(directory.path()), &origin, &Loaded::default()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn after_failures_it_rests() {
        let directory = tempfile::tempdir().expect("a directory");
        write_model(directory.path());
        let config = Config { failures_max: 2, rest: Duration::from_secs(30), ..settings(directory.path()) };
        let embedder = Embedder::new(&config, &config::Config::builtin().origin, &Loaded::default()).expect("a model");
        embedder.note(Some(&NoVector::TimedOut));
        assert!(embedder.failing.lock().until.is_none());
        embedder.note(Some(&NoVector::TimedOut));
        let origins = Origins::new(&mut Registry::default());
        assert!(matches!(embedder.vector(&origins, "tea").await, Err(NoVector::Resting)));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(embedder.vector(&origins, "tea").await.is_ok());
        assert_eq!(embedder.failing.lock().failures, 0);
    }
}
