//! The authority: made once, kept in the data directory, and bound to the hosts it was made for.
//!
//! Its certificate says so itself (RFC 5280 section 4.2.1.10): a client that trusts it trusts it for names at and below
//! those hosts, for no other name and for no address. Who got hold of the key could speak for nobody else.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, NameConstraints as Parsed},
    prelude::FromDer,
    time::ASN1Time,
};

use super::{Hosts, Pattern, Store, hosts::is_below};
use crate::files;

/// How long an authority is valid: as long as nobody wants to think of it again, and not for ever.
const VALIDITY: Duration = Duration::from_secs(5 * 365 * DAY);
/// Certificates begin before they are made, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(DAY);
const DAY: u64 = 24 * 60 * 60;
/// Longest common name of a certificate (`ub-common-name`, RFC 5280 appendix A.1).
const COMMON_NAME_MAX: usize = 64;
/// Largest file that is read.
const FILE_MAX: u64 = 64 * 1024;

/// The organisation in the names of authorities, by which they are told from others.
pub(super) const ORGANISATION: &str = "Larder local CA";

/// Why there is no authority, or it signs nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None has been made.
    #[error("there is no CA in {0:?}: `larder ca init` makes one")]
    Missing(PathBuf),
    /// One is there.
    #[error(
        "there is a CA in {0:?}: `larder ca init --force` makes another in its place, which programs then have to be \
         told to trust"
    )]
    Exists(PathBuf),
    /// Others than its owner may read the key.
    #[error(
        "the key of the CA, {path:?}, can be read by others (mode {mode:03o}), who could pose as the hosts of \
         intercept.hosts: `larder ca init --force` makes a new one; `chmod 600` will do if nobody has read it"
    )]
    Readable {
        /// The key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It would be bound to nothing.
    #[error("intercept.hosts is empty: there is nothing a CA would be for")]
    NoHosts,
    /// A file is not what it should be.
    #[error("the CA is of no use: {path:?} {reason}; `larder ca init --force` makes a new one")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It was valid once.
    #[error("the CA expired on {on}: `larder ca init --force` makes a new one")]
    Expired {
        /// When it did.
        on: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A certificate cannot be used.
    #[error("cannot use a certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// There are no random numbers.
    #[error("cannot make a certificate: the system has no random numbers")]
    Random,
    /// It was not finished.
    #[error("cannot make a certificate: it was interrupted")]
    Interrupted,
}

/// What a certificate says of its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: String,
    /// SHA-256 of the certificate, in hexadecimal with colons, as other tools show it.
    pub fingerprint: String,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// The names at and below which it may sign; `None` where nothing binds it.
    pub permitted: Option<Vec<String>>,
}

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    about: About,
}

impl Authority {
    /// Makes one for `hosts`, in place of any that is there if `force` says so.
    ///
    /// # Errors
    /// Where there is one, or it cannot be written.
    pub fn make(store: &Store, hosts: &Hosts, force: bool) -> Result<About, Error> {
        if store.is_made() && !force {
            return Err(Error::Exists(store.directory().to_owned()));
        }
        if hosts.is_empty() {
            return Err(Error::NoHosts);
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = parameters(hosts, SystemTime::now())?.self_signed(&key)?;
        files::create_dir(store.directory())?;
        // A directory that was there already may be open to others.
        std::fs::set_permissions(store.directory(), std::fs::Permissions::from_mode(0o700))
            .map_err(files::at("close", store.directory()))?;
        files::replace(&store.key(), key.serialize_pem().as_bytes(), true)?;
        files::replace(&store.certificate(), certificate.pem().as_bytes(), true)?;
        files::sync_dir(&store.key())?;
        About::of(&store.certificate(), certificate.der())
    }

    /// The one that is kept there.
    ///
    /// # Errors
    /// Where there is none, its key is no secret, or it is of no use.
    pub fn load(store: &Store) -> Result<Self, Error> {
        let certificate = certificate(store)?;
        let path = store.key();
        let damaged = |reason| Error::Damaged { path: path.clone(), reason };
        let key = KeyPair::from_pem(&secret(store)?).map_err(|_| damaged("is no private key"))?;
        let about = About::of(&store.certificate(), &certificate)?;
        if !is_of(&certificate, &key) {
            return Err(damaged("is not the key of the certificate beside it"));
        }
        about.check(SystemTime::now())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, about })
    }

    /// What its certificate says of it.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// A certificate for `host`, with the authority's own behind it, and when it ends.
    pub(super) fn sign(
        &self,
        host: &str,
        key: &impl PublicKeyData,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<(Vec<CertificateDer<'static>>, SystemTime), Error> {
        self.about.check(now)?;
        let mut parameters = CertificateParams::default();
        let not_after = (now + lifetime).min(self.about.not_after);
        parameters.not_before = (now - BACKDATED).max(self.about.not_before).into();
        parameters.not_after = not_after.into();
        parameters.serial_number = Some(serial_number()?);
        parameters.distinguished_name = named(ORGANISATION, (host.len() <= COMMON_NAME_MAX).then_some(host));
        parameters.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict clients ask for it (Python since 3.13).
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(key, &self.issuer)?;
        Ok((vec![certificate.into(), self.certificate.clone()], not_after))
    }
}

impl About {
    /// Of the authority that is kept there; its key is not looked at.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read.
    pub fn read(store: &Store) -> Result<Self, Error> {
        Self::of(&store.certificate(), &certificate(store)?)
    }

    /// Whether it may sign for all that `pattern` matches.
    pub fn covers(&self, pattern: &Pattern) -> bool {
        let Some(permitted) = &self.permitted else { return true };
        permitted.iter().any(|name| name == pattern.name() || is_below(pattern.name(), name))
    }

    fn check(&self, now: SystemTime) -> Result<(), Error> {
        if now < self.not_after { Ok(()) } else { Err(Error::Expired { on: self.ends() }) }
    }

    /// When it ends, such as `2031-11-20`.
    pub fn ends(&self) -> String {
        date(self.not_after)
    }

    fn of(path: &Path, der: &[u8]) -> Result<Self, Error> {
        let damaged = |reason| Error::Damaged { path: path.to_owned(), reason };
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| damaged("holds no certificate"))?;
        if !parsed.is_ca() {
            return Err(damaged("holds a certificate that is not of an authority"));
        }
        let constraints = parsed.name_constraints().map_err(|_| damaged("holds constraints that cannot be read"))?;
        let digest = digest::digest(&digest::SHA256, der);
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            name: name.unwrap_or_default().to_owned(),
            fingerprint: digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"),
            not_before: moment(&parsed.validity().not_before),
            not_after: moment(&parsed.validity().not_after),
            permitted: constraints.and_then(|extension| names(extension.value)),
        })
    }
}

/// The names of the subtrees that are permitted; `None` where names are not bound.
fn names(constraints: &Parsed<'_>) -> Option<Vec<String>> {
    let subtrees = constraints.permitted_subtrees.as_ref()?.iter();
    let names = subtrees.filter_map(|subtree| match subtree.base {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some(names.collect::<Vec<_>>()).filter(|names| !names.is_empty())
}

/// What is to be in the certificate of an authority for `hosts`.
fn parameters(hosts: &Hosts, now: SystemTime) -> Result<CertificateParams, Error> {
    let mut parameters = CertificateParams::default();
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    let dated = format!(" {}", date(now));
    let machine =
        machine.chars().filter(char::is_ascii_graphic).take(COMMON_NAME_MAX - "Larder CA ".len() - dated.len());
    let name = format!("Larder CA {}{dated}", machine.collect::<String>());
    parameters.distinguished_name = named(ORGANISATION, Some(&name));
    parameters.serial_number = Some(serial_number()?);
    parameters.not_before = (now - BACKDATED).into();
    parameters.not_after = (now + VALIDITY).into();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.name_constraints = Some(constraints(hosts));
    Ok(parameters)
}

/// These names and those below them; no address, which constraints on names do not reach.
fn constraints(hosts: &Hosts) -> NameConstraints {
    let mut names = hosts.iter().map(Pattern::name).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    let everywhere = [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])];
    NameConstraints {
        permitted_subtrees: names.into_iter().map(|name| GeneralSubtree::DnsName(name.to_owned())).collect(),
        excluded_subtrees: everywhere.map(GeneralSubtree::IpAddress).into(),
    }
}

fn named(organisation: &str, common_name: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organisation);
    if let Some(common_name) = common_name {
        name.push(DnType::CommonName, common_name);
    }
    name
}

/// All certificates of an authority have to differ in it, also those of the same key.
fn serial_number() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Error::Random)?;
    // A positive number of the same length each time (RFC 5280 section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn certificate(store: &Store) -> Result<CertificateDer<'static>, Error> {
    let path = store.certificate();
    let Some(pem) = files::read(&path)? else { return Err(Error::Missing(store.directory().to_owned())) };
    CertificateDer::from_pem_slice(&pem).map_err(|_| Error::Damaged { path, reason: "holds no certificate" })
}

/// The text of the key, if it is its owner's alone.
fn secret(store: &Store) -> Result<String, Error> {
    let path = store.key();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Damaged { path, reason: "is missing" });
        }
        Err(error) => return Err(files::at("read", &path)(error).into()),
    };
    // Of the file that is read, whatever takes its place.
    let mode = file.metadata().map_err(files::at("read", &path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Readable { path, mode });
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(files::at("read", &path))?;
    Ok(text)
}

fn is_of(certificate: &[u8], key: &KeyPair) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}

fn moment(time: &ASN1Time) -> SystemTime {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    if time.timestamp() < 0 { UNIX_EPOCH - seconds } else { UNIX_EPOCH + seconds }
}

/// The day, in UTC.
fn date(time: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate("2026-11-21".len());
    text
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::aws_lc_rs,
        pki_types::{ServerName, UnixTime},
    };
    use std::sync::Arc;

    use super::*;

    pub(in crate::intercept) fn hosts(patterns: &[&str]) -> Hosts {
        patterns.iter().map(|pattern| pattern.parse::<Pattern>().expect("a pattern")).collect()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::of(directory.path());
        (directory, store)
    }

    /// Whether a client that trusts the authority alone takes its certificate of `host` for `name`.
    fn accepted(store: &Store, host: &str, name: &str) -> bool {
        let authority = Authority::load(store).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let (chain, _) =
            authority.sign(host, &key, SystemTime::now(), Duration::from_secs(DAY)).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate(store).expect("a certificate")).expect("of an authority");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().expect("roots");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn it_signs_for_its_hosts_alone() {
        let (_directory, store) = store();
        Authority::make(&store, &hosts(&["api.example", "*.azure.example"]), false).expect("made");
        assert!(accepted(&store, "api.example", "api.example"));
        assert!(accepted(&store, "mine.azure.example", "mine.azure.example"));
        assert!(!accepted(&store, "api.example", "mine.azure.example"));
        assert!(!accepted(&store, "bank.example", "bank.example"), "its own certificate forbids it");
        assert!(!accepted(&store, "notapi.example", "notapi.example"));
        let long = format!("{}.{}.azure.example", "a".repeat(60), "b".repeat(60));
        assert!(accepted(&store, &long, &long), "longer than a common name");
    }

    #[test]
    fn nothing_outlives_it() {
        let (_directory, store) = store();
        let end = Authority::make(&store, &hosts(&["a.example"]), false).expect("made").not_after;
        let (authority, key) = (Authority::load(&store).expect("an authority"), KeyPair::generate().expect("a key"));
        let sign = |now| authority.sign("a.example", &key, now, Duration::from_secs(7 * DAY));
        let hour = Duration::from_secs(60 * 60);
        assert_eq!(sign(end - hour).expect("a certificate").1, end);
        assert!(matches!(sign(end), Err(Error::Expired { .. })));
        let (chain, _) = sign(SystemTime::now()).expect("a certificate");
        let serial = |der: &[u8]| X509Certificate::from_der(der).expect("parsed").1.raw_serial().to_vec();
        assert_ne!(serial(&chain[0]), serial(&sign(SystemTime::now()).expect("a certificate").0[0]));
    }

    #[test]
    fn what_it_says_of_itself() {
        let (_directory, store) = store();
        let made = Authority::make(&store, &hosts(&["b.example", "a.example", "*.a.example"]), false).expect("made");
        let about = Authority::load(&store).expect("an authority").about().clone();
        assert_eq!(made, about);
        assert_eq!(About::read(&store).expect("an authority"), about);
        assert_eq!(about.permitted.as_deref(), Some(&["a.example".to_owned(), "b.example".to_owned()][..]));
        assert!(
            about.name.starts_with("Larder CA ") && about.name.ends_with(&date(SystemTime::now())),
            "{}",
            about.name
        );
        assert_eq!(about.fingerprint.len(), 32 * 3 - 1);
        let lifetime = about.not_after.duration_since(about.not_before).expect("in order");
        assert_eq!(lifetime, VALIDITY + BACKDATED);
        let covers = |pattern: &str| about.covers(&pattern.parse().expect("a pattern"));
        assert!(covers("a.example") && covers("x.a.example") && covers("*.x.b.example"));
        assert!(!covers("c.example") && !covers("*.example") && !covers("xa.example"));
    }

    #[test]
    fn one_is_not_made_over_another_unasked() {
        let (_directory, store) = store();
        assert!(matches!(Authority::make(&store, &hosts(&[]), false), Err(Error::NoHosts)));
        assert!(matches!(Authority::load(&store), Err(Error::Missing(_))));
        let first = Authority::make(&store, &hosts(&["a.example"]), false).expect("made");
        assert!(matches!(Authority::make(&store, &hosts(&["a.example"]), false), Err(Error::Exists(_))));
        assert_eq!(About::read(&store).expect("there"), first);
        let second = Authority::make(&store, &hosts(&["b.example"]), true).expect("made");
        assert_ne!(first.fingerprint, second.fingerprint);
        assert_eq!(Authority::load(&store).expect("an authority").about(), &second);
        std::fs::remove_file(store.certificate()).expect("removed");
        let half = Authority::make(&store, &hosts(&["b.example"]), false);
        assert!(matches!(half, Err(Error::Exists(_))), "a key is not thrown away either");
    }

    #[test]
    fn its_key_is_a_secret() {
        let (_directory, store) = store();
        Authority::make(&store, &hosts(&["a.example"]), false).expect("made");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(store.directory()), mode(&store.key())), (0o700, 0o600));
        for open in [0o640, 0o604, 0o610] {
            std::fs::set_permissions(store.key(), PermissionsExt::from_mode(open)).expect("changed");
            let Err(error) = Authority::load(&store) else { panic!("a key that others read was used") };
            assert!(matches!(error, Error::Readable { mode, .. } if mode == open), "{error}");
        }
        std::fs::set_permissions(store.key(), PermissionsExt::from_mode(0o400)).expect("changed");
        Authority::load(&store).expect("a secret");
    }

    #[test]
    fn what_does_not_belong_together_is_of_no_use() {
        let ((_one, store), (_two, other)) = (self::store(), self::store());
        for store in [&store, &other] {
            Authority::make(store, &hosts(&["a.example"]), false).expect("made");
        }
        std::fs::copy(other.certificate(), store.certificate()).expect("copied");
        assert!(matches!(Authority::load(&store), Err(Error::Damaged { path, .. }) if path == store.key()));
        std::fs::write(store.certificate(), "no PEM").expect("written");
        assert!(matches!(Authority::load(&store), Err(Error::Damaged { path, .. }) if path == store.certificate()));
        std::fs::remove_file(other.key()).expect("removed");
        assert!(matches!(Authority::load(&other), Err(Error::Damaged { path, .. }) if path == other.key()));
    }
}
