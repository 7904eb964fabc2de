//! The keys of an issuer: a JWK Set (RFC 7517), or public keys as PEM.

use std::fmt;

use jsonwebtoken::{
    DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};

use super::{config::Algorithm, fault::Fault, token::Token};

/// Shortest shared secret, in bytes: what the hash of HS256 has (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Why there are no keys in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoKeys {
    /// Neither form.
    #[error("it is neither a JWK Set nor a public key as PEM")]
    OtherForm,
    /// Nothing in it can be used.
    #[error("no key in it can be used: RSA, P-256, P-384 or Ed25519, for signatures, is needed")]
    None,
    /// The key that only the issuer should have.
    #[error("it holds a private key: what belongs here is the public one")]
    Private,
    /// More than may be.
    #[error("it has more keys than are taken (jwt.keys_max)")]
    TooMany,
}

/// One key.
struct Key {
    id: Option<String>,
    kind: Kind,
    /// What alone it may be used with, if it says so.
    only: Option<Algorithm>,
    key: DecodingKey,
}

/// What a key can be used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
    Secret,
}

/// All keys of an issuer.
pub(super) struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads what a file or an answer holds. What cannot be used in a set is passed over (RFC 7517 section 5).
    ///
    /// # Errors
    /// Where nothing in it can be used, or it has more than `max`.
    pub(super) fn read(content: &[u8], max: usize) -> Result<Self, NoKeys> {
        let keys: Vec<Key> = if content.trim_ascii_start().starts_with(b"{") {
            let Set { keys } = serde_json::from_slice(content).map_err(|_| NoKeys::OtherForm)?;
            if keys.len() > max {
                return Err(NoKeys::TooMany);
            }
            if keys.iter().any(is_private) {
                return Err(NoKeys::Private);
            }
            keys.into_iter().filter_map(|key| of_jwk(&serde_json::from_value(key).ok()?)).collect()
        } else {
            of_pem(content)?
        };
        match keys.len() {
            0 => Err(NoKeys::None),
            count if count > max => Err(NoKeys::TooMany),
            _ => Ok(Self(keys)),
        }
    }

    /// Whether the signature of `token` is right, by one of the first `tried_max` keys that fit.
    ///
    /// # Errors
    /// Where it is not, or no key fits.
    pub(super) fn verify(&self, token: &Token<'_>, algorithm: Algorithm, tried_max: usize) -> Result<(), Fault> {
        let mut fault = Fault::UnknownKey;
        let fit = self.0.iter().filter(|key| key.fits(token.head.kid.as_deref(), algorithm));
        for key in fit.take(tried_max) {
            if crypto::verify(token.signature, token.message, &key.key, algorithm).unwrap_or(false) {
                return Ok(());
            }
            fault = Fault::Signature;
        }
        Err(fault)
    }
}

impl fmt::Debug for KeySet {
    /// Without the keys, some of which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (&key.id, key.kind))).finish()
    }
}

impl Key {
    /// Whether a token that names `id` can be signed with it. Who names none, or has one key for everything, is tried.
    fn fits(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let is_it = match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        };
        is_it && self.only.is_none_or(|only| only == algorithm) && self.kind.serves(algorithm)
    }
}

impl Kind {
    fn serves(self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256 => algorithm == ES256,
            Self::P384 => algorithm == ES384,
            Self::Ed25519 => algorithm == EdDSA,
            Self::Secret => matches!(algorithm, HS256 | HS384 | HS512),
        }
    }
}

/// Whether it has what signs beside what checks (RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037 section 2).
fn is_private(jwk: &Value) -> bool {
    jwk.get("d").is_some()
}

/// `None`: it is not for signatures, or of a kind that is not used here.
fn of_jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|one| *one == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let only = common.key_algorithm.map(Algorithm::try_from).transpose().ok()?;
    let kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Kind::Rsa,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Kind::P256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => Kind::P384,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Kind::Ed25519,
        AlgorithmParameters::OctetKey(_) => Kind::Secret,
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    if kind == Kind::Secret && key.try_get_as_bytes().ok()?.len() < SECRET_BYTES_MIN {
        return None;
    }
    (is_for_signatures && verifies).then(|| Key { id: common.key_id.clone(), kind, only, key })
}

fn of_pem(content: &[u8]) -> Result<Vec<Key>, NoKeys> {
    let blocks = pem::parse_many(content).map_err(|_| NoKeys::OtherForm)?;
    if blocks.is_empty() {
        return Err(NoKeys::OtherForm);
    }
    if blocks.iter().any(|block| block.tag().contains("PRIVATE")) {
        return Err(NoKeys::Private);
    }
    let public = blocks.iter().filter(|block| block.tag() == "PUBLIC KEY");
    Ok(public.filter_map(|block| of_public(block.contents())).collect())
}

/// A `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
fn of_public(der: &[u8]) -> Option<Key> {
    const ED25519: &str = "1.3.101.112";
    let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let bits = info.subject_public_key.data.as_ref();
    let (kind, key) = match info.parsed().ok()? {
        PublicKey::RSA(_) => (Kind::Rsa, DecodingKey::from_rsa_der(bits)),
        PublicKey::EC(point) if point.key_size() == 256 => (Kind::P256, DecodingKey::from_ec_der(bits)),
        PublicKey::EC(point) if point.key_size() == 384 => (Kind::P384, DecodingKey::from_ec_der(bits)),
        _ if info.algorithm.algorithm.to_id_string() == ED25519 => (Kind::Ed25519, DecodingKey::from_ed_der(bits)),
        _ => return None,
    };
    Some(Key { id: None, kind, only: None, key })
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::jwt::testing::Signer;

    fn verify(set: &KeySet, token: &str) -> Result<(), Fault> {
        let token = Token::parse(token.as_bytes()).expect("a token");
        let algorithm = token.head.alg.parse().expect("an algorithm");
        set.verify(&token, algorithm, 2)
    }

    fn set(keys: &Value) -> Result<KeySet, NoKeys> {
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes(), 8)
    }

    #[test]
    fn each_kind_of_key_from_a_set_and_from_pem() {
        for signer in [Signer::rsa("k"), Signer::p256("k"), Signer::p384("k"), Signer::ed25519("k")] {
            let token = signer.sign(&json!({ "sub": "ann" }));
            let jwk = set(&json!([signer.jwk()])).expect("a key");
            assert_eq!(verify(&jwk, &token), Ok(()), "{:?}", signer.algorithm);
            let pem = KeySet::read(signer.pem().as_bytes(), 8).expect("a key");
            assert_eq!(verify(&pem, &token), Ok(()), "{:?} as PEM", signer.algorithm);
            let (message, signature) = token.rsplit_once('.').expect("parts");
            let mut wrong = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
            wrong[7] ^= 1;
            for signature in [&BASE64_URL_SAFE_NO_PAD.encode(&wrong)[..], "", "AAAA"] {
                assert_eq!(verify(&jwk, &format!("{message}.{signature}")), Err(Fault::Signature));
            }
        }
    }

    #[test]
    fn a_key_is_found_by_its_id_and_used_for_what_it_is_for() {
        let (old, new) = (Signer::p256("old"), Signer::p256("new"));
        let both = set(&json!([old.jwk(), new.jwk()])).expect("keys");
        assert_eq!(verify(&both, &new.sign(&json!({}))), Ok(()));
        assert_eq!(verify(&both, &new.renamed("old").sign(&json!({}))), Err(Fault::Signature));
        assert_eq!(verify(&both, &new.renamed("other").sign(&json!({}))), Err(Fault::UnknownKey));
        assert_eq!(verify(&both, &new.nameless().sign(&json!({}))), Ok(()), "all that fit are tried");
        let with = |name: &str, value: Value| {
            let mut jwk = new.jwk();
            jwk[name] = value;
            set(&json!([old.jwk(), jwk])).map(|set| verify(&set, &new.sign(&json!({}))))
        };
        assert_eq!(with("use", json!("sig")), Ok(Ok(())));
        assert_eq!(with("key_ops", json!(["verify"])), Ok(Ok(())));
        for (name, value) in [
            ("use", json!("enc")),
            ("key_ops", json!(["sign"])),
            ("alg", json!("ES384")),
            ("alg", json!("RSA-OAEP")),
            ("crv", json!("P-384")),
        ] {
            assert_eq!(with(name, value.clone()), Ok(Err(Fault::UnknownKey)), "{name} {value}");
        }
    }

    #[test]
    fn a_token_is_tried_with_some_keys_only() {
        let signers = [Signer::p384("x"), Signer::p256("a"), Signer::p256("b"), Signer::p256("c")];
        let keys = set(&json!(signers.each_ref().map(Signer::jwk))).expect("keys");
        let tried = signers[1..].iter().map(|signer| verify(&keys, &signer.nameless().sign(&json!({}))));
        assert_eq!(tried.collect::<Vec<_>>(), [Ok(()), Ok(()), Err(Fault::Signature)], "the first two that fit");
        assert_eq!(verify(&keys, &signers[3].sign(&json!({}))), Ok(()), "one that is named is found");
    }

    #[test]
    fn a_public_key_is_no_shared_secret() {
        let signer = Signer::rsa("k");
        let keys = set(&json!([signer.jwk()])).expect("a key");
        for secret in [signer.pem().into_bytes(), signer.jwk().to_string().into_bytes()] {
            let forged = Signer::secret("k", &secret).sign(&json!({ "sub": "eve" }));
            assert_eq!(verify(&keys, &forged), Err(Fault::UnknownKey));
        }
    }

    #[test]
    fn a_shared_secret_is_long_enough() {
        let signer = Signer::secret("k", &[7; 32]);
        assert_eq!(verify(&set(&json!([signer.jwk()])).expect("a key"), &signer.sign(&json!({}))), Ok(()));
        assert_eq!(set(&json!([Signer::secret("k", &[7; 31]).jwk()])).err(), Some(NoKeys::None));
    }

    #[test]
    fn what_cannot_be_used_is_passed_over() {
        let signer = Signer::ed25519("k");
        let strange = json!([{ "kty": "XYZ" }, 7, { "kty": "OKP", "crv": "X448", "x": "AA" }, signer.jwk()]);
        assert_eq!(verify(&set(&strange).expect("one"), &signer.sign(&json!({}))), Ok(()));
        assert_eq!(set(&json!([])).err(), Some(NoKeys::None));
        assert_eq!(set(&json!([{ "kty": "XYZ" }])).err(), Some(NoKeys::None));
        assert_eq!(set(&json!(vec![signer.jwk(); 9])).err(), Some(NoKeys::TooMany));
        let read = |text: &str| KeySet::read(text.as_bytes(), 8).err();
        for text in ["", "{", "{}", "[]", "<html>"] {
            assert_eq!(read(text), Some(NoKeys::OtherForm), "{text}");
        }
        let private = signer.pem().replace("PUBLIC", "PRIVATE");
        assert_eq!(read(&private), Some(NoKeys::Private));
        let mut private = signer.jwk();
        private["d"] = json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
        assert_eq!(set(&json!([Signer::p256("k").jwk(), private])).err(), Some(NoKeys::Private));
        assert_eq!(read(&signer.pem().replace("PUBLIC KEY", "CERTIFICATE")), Some(NoKeys::None));
        assert_eq!(read(&signer.pem().repeat(9)), Some(NoKeys::TooMany));
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = set(&json!([Signer::secret("k", b"0123456789abcdef0123456789abcdef").jwk()])).expect("a key");
        assert_eq!(format!("{keys:?}"), r#"[(Some("k"), Secret)]"#);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = KeySet::read(&content, 8);
        }
    }
}
