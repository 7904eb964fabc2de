//! What clients are shown: certificates from files, found by the name that a client asks for (SNI, RFC 6066 section 3).

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::CertificateDer,
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{Config, FileError, Identity, authorities, config::Certificate, provider};

/// In order of preference (RFC 7301 section 3.2).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS cannot be served as configured.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {source}")]
pub struct Error {
    /// The setting, by its path.
    pub setting: String,
    /// Its file, and what is wrong with it.
    pub source: FileError,
}

/// Makes what answers handshakes. What lets clients resume sessions outlives it, and what it is made of.
#[derive(Default)]
pub(crate) struct Server {
    /// Made when they are needed first: the library gathers randomness of its own for that, which takes longer than all else
    /// at the start. `None`: there is none to be had, and no session is resumed.
    tickets: OnceLock<Option<Arc<dyn ProducesTickets>>>,
}

/// What is shown, read from its files.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// How handshakes are answered; `None`: there are none.
    pub(crate) settings: Option<Arc<ServerConfig>>,
    /// The certificates, in the order of the configuration.
    pub(crate) shown: Vec<Shown>,
}

/// A certificate that clients may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The first of its names; where it has none, its file.
    pub(crate) name: String,
    /// When it ends, in seconds since 1970.
    pub(crate) not_after: i64,
}

impl Server {
    /// Reads all files of `config`, which is at `section` of the configuration. Warns of certificates that have expired:
    /// that may be a matter of this machine's clock.
    ///
    /// # Errors
    /// Where one of them cannot be used; it names the setting and the file.
    pub(crate) fn read(&self, section: &str, config: &Config) -> Result<Served, Error> {
        if !config.is_on() {
            return Ok(Served::default());
        }
        let (mut names, mut shown) = (Names::default(), Vec::new());
        for (index, files) in config.certificates.iter().enumerate() {
            let setting = format!("{section}.certificates[{index}]");
            let (key, about) = certificate(&setting, files)?;
            if about.shown.not_after <= now() {
                tracing::warn!(setting, name = about.shown.name, cert = ?files.cert, "the certificate has expired");
            }
            names.add(&about.names, &Arc::new(key));
            shown.push(about.shown);
        }
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default protocol versions");
        let builder = if config.client_ca.is_empty() {
            builder.with_no_client_auth()
        } else {
            let path = Path::new(&config.client_ca);
            let failed = |source| of(&format!("{section}.client_ca"), path, source);
            let roots = std::fs::read(path).and_then(|pem| authorities(RootCertStore::empty(), &pem));
            let roots = Arc::new(roots.map_err(failed)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| failed(io::Error::other(error)))?)
        };
        let mut settings = builder.with_cert_resolver(Arc::new(names));
        settings.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        match self.tickets.get_or_init(|| aws_lc_rs::Ticketer::new().ok()) {
            Some(tickets) if config.client_ca.is_empty() => settings.ticketer = Arc::clone(tickets),
            // A session that is resumed brings the certificate it began with, whoever is trusted by then.
            _ => settings.send_tls13_tickets = 0,
        }
        Ok(Served { settings: Some(Arc::new(settings)), shown })
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn of(setting: &str, path: &Path, source: io::Error) -> Error {
    Error { setting: setting.to_owned(), source: FileError { path: path.to_owned(), source } }
}

/// What a certificate says of itself.
struct About {
    names: Vec<String>,
    shown: Shown,
}

fn certificate(setting: &str, files: &Certificate) -> Result<(CertifiedKey, About), Error> {
    let (cert, key) = (format!("{setting}.cert"), format!("{setting}.key"));
    let identity = Identity::read(&files.cert, &files.key).map_err(|source| {
        let setting = if source.path == files.key && source.path != files.cert { &key } else { &cert };
        Error { setting: setting.clone(), source }
    })?;
    let wrong = |error: String| of(&cert, &files.cert, io::Error::other(error));
    let first = identity.chain.first().ok_or_else(|| wrong("no certificate in it".to_owned()))?;
    let about = about(first, &files.cert).map_err(wrong)?;
    let made = CertifiedKey::from_der(identity.chain, identity.key, &provider());
    let made = made.map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let message = format!("the key does not belong to the certificate in {:?}", files.cert);
            of(&key, &files.key, io::Error::other(message))
        }
        rustls::Error::InvalidCertificate(error) => wrong(format!("{error:?}")),
        error => of(&key, &files.key, io::Error::other(error)),
    })?;
    Ok((made, about))
}

fn about(certificate: &CertificateDer<'_>, file: &Path) -> Result<About, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let alternatives = alternatives.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
    let names: Vec<_> = alternatives
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    let name = names.first().cloned().unwrap_or_else(|| file.display().to_string());
    Ok(About { names, shown: Shown { name, not_after: parsed.validity().not_after.timestamp() } })
}

/// Certificates by the names in them.
#[derive(Debug, Default)]
struct Names {
    /// Those of each name, in the order of the configuration: the same name may have keys of two kinds.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// The first of all, and those of the same names.
    default: Vec<Arc<CertifiedKey>>,
}

impl Names {
    fn add(&mut self, names: &[String], key: &Arc<CertifiedKey>) {
        if self.default.is_empty() || names.first().is_some_and(|first| self.is_default(first)) {
            self.default.push(Arc::clone(key));
        }
        for name in names {
            self.named.entry(name.clone()).or_default().push(Arc::clone(key));
        }
    }

    fn is_default(&self, name: &str) -> bool {
        let Some(first) = self.default.first() else { return false };
        self.named.get(name).is_some_and(|keys| keys.iter().any(|key| Arc::ptr_eq(key, first)))
    }

    /// For who asks for `name`: those that name it, or its wildcard (RFC 6125 section 6.4.3), or else the first of all.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let above = || self.named.get(&format!("*.{}", name.split_once('.')?.1));
            self.named.get(&name).or_else(above)
        });
        found.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.of(hello.server_name());
        let usable = keys.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or_else(|| keys.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// A certificate for `names` in `{name}.pem`, and its key in `{name}.key`.
        fn add(&self, name: &str, names: &[&str]) -> Certificate {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let mut parameters = CertificateParams::new(names).expect("names");
            parameters.not_after = rcgen::date_time_ymd(2040, 1, 1);
            let key = KeyPair::generate().expect("a key");
            let made = parameters.self_signed(&key).expect("a certificate");
            let files = Certificate { cert: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
            fs::write(&files.cert, made.pem()).expect("written");
            fs::write(&files.key, key.serialize_pem()).expect("written");
            files
        }
    }

    fn read(certificates: Vec<Certificate>, client_ca: &str) -> Result<Served, String> {
        let server = Server::default();
        let config = Config { certificates, client_ca: client_ca.to_owned() };
        server.read("listen.tls", &config).map_err(|error| error.to_string())
    }

    #[test]
    fn without_certificates_there_is_no_tls() {
        assert!(read(Vec::new(), "").expect("nothing to read").settings.is_none());
    }

    #[test]
    fn what_is_shown_is_told() {
        let files = Files::new();
        let served = read(vec![files.add("a", &["A.example", "b.example"])], "").expect("served");
        assert_eq!(served.shown, [Shown { name: "a.example".to_owned(), not_after: 2_208_988_800 }]);
        let settings = served.settings.expect("TLS");
        assert_eq!(settings.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn errors_name_setting_and_file() {
        let files = Files::new();
        let (one, other) = (files.add("a", &["a.example"]), files.add("b", &["b.example"]));
        let crossed = Certificate { cert: one.cert.clone(), key: other.key.clone() };
        let error = read(vec![one.clone(), crossed], "").expect_err("refused");
        let expected = format!("listen.tls.certificates[1].key: {:?}: the key does not belong to", other.key);
        assert!(error.starts_with(&expected), "{error}");
        let keyless = Certificate { cert: one.cert.clone(), key: one.cert.clone() };
        let error = read(vec![keyless], "").expect_err("refused");
        assert!(error.contains("no private key in it"), "{error}");
        let gone = Certificate { cert: files.path("gone"), key: one.key.clone() };
        let error = read(vec![gone], "").expect_err("refused");
        assert!(error.starts_with("listen.tls.certificates[0].cert: ") && error.contains("gone"), "{error}");
        let error = read(vec![one.clone()], &one.key.display().to_string()).expect_err("refused");
        assert!(error.starts_with("listen.tls.client_ca: ") && error.ends_with("no certificate in it"), "{error}");
    }

    #[test]
    fn found_by_name() {
        let files = Files::new();
        let mut names = Names::default();
        let mut add = |file: &str, of: &[&str]| {
            let (key, about) = certificate("x", &files.add(file, of)).expect("a certificate");
            let key = Arc::new(key);
            names.add(&about.names, &key);
            key
        };
        let first = add("first", &["first.example"]);
        let wild = add("wild", &["*.shop.example", "shop.example"]);
        let exact = add("exact", &["www.shop.example"]);
        let again = add("again", &["first.example"]);
        let found = |name: Option<&str>| names.of(name).to_vec();
        let same = |found: &[Arc<CertifiedKey>], wanted: &[&Arc<CertifiedKey>]| {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        assert!(same(&found(None), &[&first, &again]) && same(&found(Some("other.example")), &[&first, &again]));
        assert!(same(&found(Some("FIRST.example")), &[&first, &again]));
        assert!(same(&found(Some("shop.example")), &[&wild]) && same(&found(Some("a.shop.example")), &[&wild]));
        assert!(same(&found(Some("www.shop.example")), &[&exact]));
        assert!(same(&found(Some("a.b.shop.example")), &[&first, &again]), "a star is one label");
    }
}
