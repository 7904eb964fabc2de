//! Tokens for tests, signed by other code than checks them.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RsaKeyPair,
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::Arc;

use super::config::{Algorithm, Config};

/// In base64url.
pub(super) fn encoded(text: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// An issuer for the audience `larder`, with `toml` beside what is needed.
pub(super) fn config(toml: &str) -> Config {
    let needed = "name = 'idp'\nissuer = 'https://idp.example'\nkeys = 'https://idp.example/keys'\n";
    let text = format!("{needed}audiences = ['larder']\n{toml}");
    toml_edit::de::from_str(&text).expect("an issuer")
}

#[derive(Clone)]
enum Key {
    Rsa(Arc<RsaKeyPair>),
    Ecdsa(Arc<EcdsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
    Secret(Vec<u8>),
}

/// Who signs.
#[derive(Clone)]
pub(super) struct Signer {
    pub(super) algorithm: Algorithm,
    id: Option<String>,
    key: Key,
}

impl Signer {
    fn new(algorithm: Algorithm, id: &str, key: Key) -> Self {
        Self { algorithm, id: Some(id.to_owned()), key }
    }

    pub(super) fn rsa(id: &str) -> Self {
        let key = RsaKeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
        Self::new(Algorithm::RS256, id, Key::Rsa(Arc::new(key)))
    }

    pub(super) fn p256(id: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self::new(Algorithm::ES256, id, Key::Ecdsa(Arc::new(key)))
    }

    pub(super) fn p384(id: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
        Self::new(Algorithm::ES384, id, Key::Ecdsa(Arc::new(key)))
    }

    pub(super) fn ed25519(id: &str) -> Self {
        let key = Ed25519KeyPair::generate().expect("a key");
        Self::new(Algorithm::EdDSA, id, Key::Ed25519(Arc::new(key)))
    }

    pub(super) fn secret(id: &str, secret: &[u8]) -> Self {
        Self::new(Algorithm::HS256, id, Key::Secret(secret.to_vec()))
    }

    /// The same key under another id.
    pub(super) fn renamed(&self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self.clone() }
    }

    /// The same key, which its tokens do not name.
    pub(super) fn nameless(&self) -> Self {
        Self { id: None, ..self.clone() }
    }

    /// A token with these claims.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut head = json!({ "alg": self.algorithm, "typ": "JWT" });
        if let Some(id) = &self.id {
            head["kid"] = json!(id);
        }
        let message = format!("{}.{}", encoded(head.to_string()), encoded(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let padding = &signature::RSA_PKCS1_SHA256;
                key.sign(padding, &random, message.as_bytes(), &mut signature).expect("a signature");
                signature
            }
            Key::Ecdsa(key) => key.sign(&random, message.as_bytes()).expect("a signature").as_ref().to_vec(),
            Key::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
            Key::Secret(key) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()).as_ref().to_vec()
            }
        };
        format!("{message}.{}", encoded(signature))
    }

    /// What checks it, as a JWK.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Rsa(key) => {
                let key = key.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                json!({ "kty": "RSA", "n": encoded(n.big_endian_without_leading_zero()),
                    "e": encoded(e.big_endian_without_leading_zero()) })
            }
            Key::Ecdsa(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y) })
            }
            Key::Ed25519(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key()) }),
            Key::Secret(key) => json!({ "kty": "oct", "k": encoded(key) }),
        };
        jwk["kid"] = json!(self.id);
        jwk
    }

    /// What checks it, as PEM.
    pub(super) fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match &self.key {
            Key::Rsa(key) => key.public_key().as_der().expect("a key"),
            Key::Ecdsa(key) => key.public_key().as_der().expect("a key"),
            Key::Ed25519(key) => key.public_key().as_der().expect("a key"),
            Key::Secret(_) => panic!("a secret is not public"),
        };
        pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref()))
    }
}
