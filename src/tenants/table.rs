//! The tenants that are known, and whom a request is of.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use parking_lot::RwLock;

use super::{config::Config, denied::Denied, gate::Gate, key::Digest, presented::Presented};
use crate::jwt::{self, Claims, Issuers};

/// Longest name in a token that can be a tenant's.
const SUBJECT_BYTES_MAX: usize = 200;

/// What metrics call tenants beyond those that they tell apart. No tenant is called so.
const OTHERS: &str = "other";

/// A tenant.
pub struct Tenant {
    /// Its name: in logs and keys.
    pub name: Arc<str>,
    /// What metrics call it beside others; `None`: they always tell it apart.
    among: Option<Among>,
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
pub struct Names(Arc<RwLock<HashSet<Arc<str>>>>);

/// Names, of which metrics tell `max` apart.
#[derive(Clone)]
struct Among {
    names: Names,
    max: usize,
}

impl Among {
    /// What metrics call `name`.
    fn label(&self, name: &Arc<str>) -> Arc<str> {
        // Of nearly all requests the name is known, or there is no place for it: they do not wait for each other.
        if let Some(label) = self.known(&self.names.0.read(), name) {
            return label;
        }
        let mut names = self.names.0.write();
        self.known(&names, name).unwrap_or_else(|| {
            names.insert(Arc::clone(name));
            Arc::clone(name)
        })
    }

    /// The same, where that is settled.
    fn known(&self, names: &HashSet<Arc<str>>, name: &str) -> Option<Arc<str>> {
        let others = || (names.len() >= self.max).then(|| OTHERS.into());
        names.get(name).map(Arc::clone).or_else(others)
    }
}

impl Tenant {
    fn of(config: &Config) -> Self {
        let routes = config.routes.iter().map(|route| route.as_str().into()).collect::<Box<[_]>>();
        Self { name: config.name.as_str().into(), among: None, routes: (!routes.is_empty()).then_some(routes) }
    }

    /// What metrics call it. To be asked for what is counted alone: who is asked about takes no place among the names.
    pub fn label(&self) -> Arc<str> {
        self.among.as_ref().map_or_else(|| Arc::clone(&self.name), |among| among.label(&self.name))
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
        Ok(self.of_subject(&claims.issuer, &claims.name))
    }

    /// The tenant that has this name in tokens of that issuer among its subjects, or else the one that is called so.
    fn of_subject(&self, issuer: &str, name: &str) -> Arc<Tenant> {
        let Inner { by_subject, names, names_max, .. } = &*self.inner;
        let subject = [issuer, "/", name].concat();
        let of_all = || by_subject.get(&*[issuer, "/*"].concat());
        let of_itself = || {
            let among = Among { names: names.clone(), max: *names_max };
            Arc::new(Tenant { name: subject.as_str().into(), among: Some(among), routes: None })
        };
        by_subject.get(&*subject).or_else(of_all).map_or_else(of_itself, Arc::clone)
    }

    fn of_key(&self, key: &[u8]) -> Option<Arc<Tenant>> {
        self.inner.by_key.get(&Digest::of(key)).cloned()
    }

    /// The tenant of that name, for who speaks for it without a key.
    ///
    /// # Errors
    /// Where there is none: it is not configured, and no issuer could have named it.
    pub fn spoken_for(&self, name: &str) -> Result<Arc<Tenant>, Denied> {
        if let Some(tenant) = self.inner.by_name.get(name) {
            return Ok(Arc::clone(tenant));
        }
        let could_be = |(issuer, name): &(&str, &str)| {
            self.inner.issuers.know(issuer) && (1..=SUBJECT_BYTES_MAX).contains(&name.len())
        };
        let (issuer, name) = name.split_once('/').filter(could_be).ok_or(Denied::Nobody)?;
        Ok(self.of_subject(issuer, name))
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

impl fmt::Debug for Tenant {
    /// Without the names of others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("name", &self.name).field("routes", &self.routes).finish_non_exhaustive()
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
        for nobody in ["serach", "corp/a", "corp/", "/", ""] {
            assert_eq!(name(nobody), Err(Denied::Nobody), "{nobody}: there is no such issuer either");
        }
    }

    #[test]
    fn names_of_issuers_have_a_bounded_number_of_labels() {
        let (names, config) = (Names::default(), [config("search", &["key"], &[])]);
        let tenants = Tenants::new(&config, Issuers::none(), names.clone(), 2);
        let labels =
            |tenants: &Tenants| ["a", "b", "c", "a"].map(|name| tenants.of_subject("corp", name).label().to_string());
        assert_eq!(tenants.of_subject("corp", "z").name.as_ref(), "corp/z", "who is not counted takes no place");
        assert_eq!(labels(&tenants), ["corp/a", "corp/b", OTHERS, "corp/a"]);
        assert_eq!(tenants.of_subject("corp", "c").name.as_ref(), "corp/c");
        assert_eq!(tenants.spoken_for("search").expect("it is there").label().as_ref(), "search");
        let reloaded = Tenants::new(&[], Issuers::none(), names, 2);
        assert_eq!(labels(&reloaded), ["corp/a", "corp/b", OTHERS, "corp/a"], "after a reload");
    }
}
