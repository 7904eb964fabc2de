//! Issuers of tokens: keys of each kind, tokens signed by them, and the JWK Set that checks them. The cryptography is used
//! as it is, without the crate that the gateway checks tokens with.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::origin::{self, Origin, Reply, reply};

/// What `iss` is.
pub(crate) const ISSUER: &str = "https://login.example/realms/staff";

/// Where the keys are.
pub(crate) const KEYS: &str = "/realms/staff/certs";

/// In base64url.
pub(crate) fn encoded(text: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What a token of `name` says, with these roles, for ten minutes.
pub(crate) fn claims(name: &str, roles: &[&str]) -> Value {
    let (iat, exp) = (now(), now() + 600);
    let access = json!({ "roles": roles });
    json!({ "iss": ISSUER, "aud": ["account", "larder"], "sub": name, "iat": iat, "exp": exp, "realm_access": access })
}

/// A key of an issuer.
#[derive(Clone)]
pub(crate) struct Key {
    id: String,
    pair: Pair,
}

#[derive(Clone)]
enum Pair {
    Rsa(Arc<RsaKeyPair>),
    P256(Arc<EcdsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
}

impl Key {
    /// RS256.
    pub(crate) fn rsa(id: &str) -> Self {
        let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
        Self { id: id.to_owned(), pair: Pair::Rsa(Arc::new(pair)) }
    }

    /// ES256.
    pub(crate) fn p256(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { id: id.to_owned(), pair: Pair::P256(Arc::new(pair)) }
    }

    /// `EdDSA`.
    pub(crate) fn ed25519(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        Self { id: id.to_owned(), pair: Pair::Ed25519(Arc::new(pair)) }
    }

    /// The same key, by another name.
    pub(crate) fn named(&self, id: &str) -> Self {
        Self { id: id.to_owned(), pair: self.pair.clone() }
    }

    /// A token.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let algorithm = match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        };
        let head = json!({ "alg": algorithm, "typ": "JWT", "kid": self.id });
        let message = format!("{}.{}", encoded(head.to_string()), encoded(claims.to_string()));
        let (random, bytes) = (SystemRandom::new(), message.as_bytes());
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).expect("a signature");
                signature
            }
            Pair::P256(pair) => pair.sign(&random, bytes).expect("a signature").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", encoded(signature))
    }

    fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let [n, e] = [n, e].map(|number| encoded(number.big_endian_without_leading_zero()));
                json!({ "kty": "RSA", "n": n, "e": e, "alg": "RS256" })
            }
            Pair::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y) })
            }
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key()) }),
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The public key as PEM.
    pub(crate) fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der().expect("a key"),
            Pair::P256(pair) => pair.public_key().as_der().expect("a key"),
            Pair::Ed25519(pair) => pair.public_key().as_der().expect("a key"),
        };
        pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref()))
    }
}

/// A JWK Set of these keys.
pub(crate) fn set(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// What an issuer answers who is asked for its keys, and can be told to answer otherwise.
#[derive(Clone)]
pub(crate) struct Published(Arc<Mutex<Reply>>);

impl Published {
    /// These keys from now on.
    pub(crate) fn keys(&self, keys: &[&Key]) {
        self.answer(reply(set(keys)).header("content-type", "application/jwk-set+json"));
    }

    /// This from now on.
    pub(crate) fn answer(&self, answer: Reply) {
        *self.0.lock().expect("no one panics under this lock") = answer;
    }
}

/// An issuer that publishes `keys`.
pub(crate) async fn issuer(keys: &[&Key]) -> (Origin, Published) {
    let published = Published(Arc::new(Mutex::new(reply(""))));
    published.keys(keys);
    let answers = published.clone();
    let answer = move |_: &origin::Seen, _| answers.0.lock().expect("no one panics under this lock").clone();
    (origin::new().handler(KEYS, answer).run().await, published)
}

/// The configuration of an issuer whose keys are at `keys`, by name `staff`, with `more`.
pub(crate) fn config(keys: &str, more: &str) -> String {
    format!(
        "[[issuer]]\nname = 'staff'\nissuer = '{ISSUER}'\nkeys = '{keys}'\naudiences = ['larder']\n\
         roles_claim = 'realm_access.roles'\nroles = {{ viewer = 'read', deployer = 'purge', chief = 'operate' }}\n{more}\n"
    )
}
