//! The tenants that are known, and whom a request is of.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{config::Config, denied::Denied, gate::Gate, key::Digest, presented::Presented};
use crate::jwt::{self, Claims, Issuers};

/// Longest name in a token that can be a tenant's.
const SUBJECT_BYTES_MAX: usize = 200;

/// What metrics call tenants beyond those that they tell apart. No tenant is called so.
const OTHERS: &str = "other";

/// A tenant.
#[derive(Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name: in logs and keys.
    pub name: Arc<str>,
    /// What metrics call it.
    pub label: Arc<str>,
    /// The routes it may use; `None`: all.
    routes: Option<Box<[Box<str>]>>,
}

/// All tenants. Copies share everything.
#[derive(Clone)]
pub struct Tenants {
    inner: Arc<Inner>,
}

struct Inner {
    by_key: HashMap<Digest, Arc<Tenant>>,
    by_name: HashMap<Arc<str>, Arc<Tenant>>,
    /// By what subjects say: an issuer's name, `/`, and a name or `*`.
    by_subject: HashMap<Box<str>, Arc<Tenant>>,
    issuers: Issuers,
    names: Names,
    names_max: usize,
}

/// Names of tenants that metrics tell apart although no configuration has them. They outlive a configuration, as the
/// figures do.
#[derive(Clone, Default)]
pub struct Names(Arc<Mutex<HashSet<Arc<str>>>>);

impl Names {
    /// What metrics call `name` while they tell `max` apart.
    fn label(&self, name: &Arc<str>, max: usize) -> Arc<str> {
        let mut names = self.0.lock();
        if names.contains(name) {
            return Arc::clone(name);
        }
        if names.len() >= max {
            return OTHERS.into();
        }
        names.insert(Arc::clone(name));
        Arc::clone(name)
    }
}

impl Tenant {
    fn of(config: &Config) -> Self {
        let name: Arc<str> = config.name.as_str().into();
        let routes = config.routes.iter().map(|route| route.as_str().into()).collect::<Box<[_]>>();
        Self { label: Arc::clone(&name), name, routes: (!routes.is_empty()).then_some(routes) }
    }

    /// Whether it may use the route of that name.
    pub fn may_use(&self, route: &str) -> bool {
        self.routes.as_ref().is_none_or(|routes| routes.iter().any(|known| **known == *route))
    }

    /// The same, if it may use the route of that name.
    ///
    /// # Errors
    /// If it may not.
    pub fn admitted(self: Arc<Self>, route: &str) -> Result<Arc<Self>, Denied> {
        if self.may_use(route) { Ok(self) } else { Err(Denied::Route(Arc::clone(&self.name))) }
    }
}

impl Tenants {
    /// From tenants that the configuration has validated. Beside them, there are those whom `issuers` name; metrics tell
    /// `names_max` of them apart.
    pub fn new(tenants: &[Config], issuers: Issuers, names: Names, names_max: usize) -> Self {
        let (mut by_key, mut by_name, mut by_subject) = (HashMap::new(), HashMap::new(), HashMap::new());
        for config in tenants {
            let tenant = Arc::new(Tenant::of(config));
            let of_keys = config.keys.iter().map(|key| Digest::of(key.as_bytes()));
            let hashes = config.key_hashes.iter().filter_map(|hash| hash.parse().ok());
            by_key.extend(of_keys.chain(hashes).map(|digest| (digest, Arc::clone(&tenant))));
            by_subject.extend(config.subjects.iter().map(|name| (name.as_str().into(), Arc::clone(&tenant))));
            by_name.insert(Arc::clone(&tenant.name), tenant);
        }
        Self { inner: Arc::new(Inner { by_key, by_name, by_subject, issuers, names, names_max }) }
    }

    /// As [`Tenants::admit`], where nothing has to be waited for; `None`: he is not let in, or it is to be waited for.
    pub fn admit_at_once(&self, gate: &Gate, presented: Presented<'_>, route: &str) -> Option<Arc<Tenant>> {
        let credential = credential(presented).ok()?;
        let tenant = if is_token(gate, credential) {
            self.of_claims(gate, &*self.inner.issuers.remembered(credential)?).ok()?
        } else {
            self.of_key(credential)?
        };
        tenant.admitted(route).ok()
    }

    /// Whom a request is of that presents this to a route, if he may use it.
    ///
    /// # Errors
    /// Why he is not let in.
    pub async fn admit(&self, gate: &Gate, presented: Presented<'_>, route: &str) -> Result<Arc<Tenant>, Denied> {
        let credential = credential(presented)?;
        let tenant = if is_token(gate, credential) {
            self.of_claims(gate, &*self.inner.issuers.verified(credential).await?)?
        } else {
            self.of_key(credential).ok_or(Denied::Unknown)?
        };
        tenant.admitted(route)
    }

    /// The tenant whose subject a token names, or the one that is called as it.
    fn of_claims(&self, gate: &Gate, claims: &Claims) -> Result<Arc<Tenant>, Denied> {
        if !gate.takes(&claims.issuer) {
            return Err(Denied::Issuer);
        }
        // What is longer may have been cut, and then be the name of several.
        if claims.name.len() > SUBJECT_BYTES_MAX {
            return Err(Denied::Name);
        }
        let subject = [&*claims.issuer, "/", &*claims.name].concat();
        let of_all = || self.inner.by_subject.get(&*[&*claims.issuer, "/*"].concat());
        let configured = self.inner.by_subject.get(&*subject).or_else(of_all);
        Ok(configured.map_or_else(|| self.named(&subject), Arc::clone))
    }

    fn of_key(&self, key: &[u8]) -> Option<Arc<Tenant>> {
        self.inner.by_key.get(&Digest::of(key)).cloned()
    }

    /// The tenant of that name, for who speaks for it without a key.
    ///
    /// # Errors
    /// Where there is none: it is not configured, and no issuer could have named it.
    pub fn spoken_for(&self, name: &str) -> Result<Arc<Tenant>, Denied> {
        let known = self.inner.by_name.contains_key(name) || name.contains('/');
        if known { Ok(self.named(name)) } else { Err(Denied::Nobody) }
    }

    /// The tenant of that name: one that is configured, or else one that only an issuer knows.
    fn named(&self, name: &str) -> Arc<Tenant> {
        match self.inner.by_name.get(name) {
            Some(tenant) => Arc::clone(tenant),
            None => {
                let name: Arc<str> = name.into();
                let label = self.inner.names.label(&name, self.inner.names_max);
                Arc::new(Tenant { name, label, routes: None })
            }
        }
    }
}

/// Whether what was presented is to be taken for a token: keys with two dots are keys where no tokens are taken.
fn is_token(gate: &Gate, credential: &[u8]) -> bool {
    gate.takes_tokens() && jwt::looks_like(credential)
}

fn credential(presented: Presented<'_>) -> Result<&[u8], Denied> {
    match presented {
        Presented::Nothing => Err(Denied::Missing),
        Presented::Several => Err(Denied::Unknown),
        Presented::Credential(credential) => Ok(credential),
    }
}

impl fmt::Debug for Tenants {
    /// Their names alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.inner.by_name.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::{Access, Clients};

    fn config(name: &str, keys: &[&str], routes: &[&str]) -> Config {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let hash = |key: &&str| Digest::of(key.as_bytes()).to_string();
        let (plain, hashed) = keys.split_at(keys.len().min(1));
        Config {
            name: name.to_owned(),
            keys: texts(plain),
            key_hashes: hashed.iter().map(hash).collect(),
            subjects: vec![],
            routes: texts(routes),
        }
    }

    fn gate() -> Gate {
        let access = Access {
            clients: Clients::Tenants,
            fields: vec!["larder-key".to_owned()],
            issuers: vec![],
            forward_credentials: false,
            names_max: 0,
        };
        Gate::of(&access).expect("it asks")
    }

    async fn admit(tenants: &Tenants, presented: Presented<'_>, route: &str) -> Result<String, Denied> {
        let gate = gate();
        let at_once = tenants.admit_at_once(&gate, presented, route).map(|tenant| tenant.name.to_string());
        let admitted = tenants.admit(&gate, presented, route).await.map(|tenant| tenant.name.to_string());
        assert_eq!(at_once, admitted.clone().ok(), "either way");
        admitted
    }

    #[tokio::test]
    async fn each_key_is_its_tenants() {
        let tenants = [config("search", &["key-1", "key-2"], &[]), config("shop", &["key-3"], &["catalogue"])];
        let tenants = Tenants::new(&tenants, Issuers::none(), Names::default(), 0);
        let key = |key: &'static str| Presented::Credential(key.as_bytes());
        assert_eq!(admit(&tenants, key("key-1"), "any").await, Ok("search".to_owned()));
        assert_eq!(admit(&tenants, key("key-2"), "any").await, Ok("search".to_owned()), "by its hash");
        assert_eq!(admit(&tenants, key("key-3"), "catalogue").await, Ok("shop".to_owned()));
        assert_eq!(admit(&tenants, key("key-3"), "any").await, Err(Denied::Route("shop".into())));
        for unknown in ["", "key", "key-4", "key-11"] {
            assert_eq!(admit(&tenants, key(unknown), "any").await, Err(Denied::Unknown), "{unknown}");
        }
        assert_eq!(admit(&tenants, Presented::Nothing, "any").await, Err(Denied::Missing));
        assert_eq!(admit(&tenants, Presented::Several, "any").await, Err(Denied::Unknown));
        assert!(!format!("{tenants:?}").contains("key-"));
    }

    #[test]
    fn nobody_speaks_for_a_tenant_that_is_not_there() {
        let tenants = [config("search", &["key"], &[])];
        let tenants = Tenants::new(&tenants, Issuers::none(), Names::default(), 1);
        let name = |name: &str| tenants.spoken_for(name).map(|tenant| tenant.name.to_string());
        assert_eq!(name("search"), Ok("search".to_owned()));
        assert_eq!(name("corp/a"), Ok("corp/a".to_owned()));
        assert_eq!(name("serach"), Err(Denied::Nobody));
    }

    #[test]
    fn names_of_issuers_have_a_bounded_number_of_labels() {
        let (names, config) = (Names::default(), [config("search", &["key"], &[])]);
        let tenants = Tenants::new(&config, Issuers::none(), names.clone(), 2);
        let labels = |tenants: &Tenants| {
            ["search", "corp/a", "corp/b", "corp/c", "corp/a"].map(|name| tenants.named(name).label.to_string())
        };
        assert_eq!(labels(&tenants), ["search", "corp/a", "corp/b", OTHERS, "corp/a"]);
        assert_eq!(tenants.named("corp/c").name.as_ref(), "corp/c");
        assert_eq!(
            labels(&Tenants::new(&[], Issuers::none(), names, 2))[1..],
            ["corp/a", "corp/b", OTHERS, "corp/a"],
            "after a reload"
        );
    }
}
