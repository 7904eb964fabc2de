//! URLs of Redis: where to begin, with which name and password, in which database.

use std::{fmt, net::Ipv6Addr};

use super::config::ConfigError;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Seeds and Sentinels that are named at most.
const HOSTS_MAX: usize = 64;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who is asked first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Servers themselves: the one, or some of a cluster.
    Direct(Vec<Address>),
    /// Sentinels, for the master of that name.
    Sentinel { sentinels: Vec<Address>, master: String },
}

impl Form {
    /// The servers among them: a Sentinel is none.
    pub(super) fn servers(&self) -> Vec<Address> {
        match self {
            Self::Direct(servers) => servers.clone(),
            Self::Sentinel { .. } => Vec::new(),
        }
    }
}

/// What all URLs say together.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) form: Form,
    pub(super) tls: bool,
    /// Empty: the default user.
    pub(super) username: String,
    /// Empty: none.
    pub(super) password: String,
    pub(super) database: u32,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("form", &self.form).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Target {
    /// What these say together; they must agree.
    pub(super) fn of(urls: &[String]) -> Result<Self, ConfigError> {
        let mut all: Option<Self> = None;
        for url in urls {
            let wrong = |reason: &str| ConfigError::Url { url: masked(url), reason: reason.to_owned() };
            let one = parse(url).map_err(wrong)?;
            match &mut all {
                None => all = Some(one),
                Some(all) => all.join(one).map_err(wrong)?,
            }
        }
        all.ok_or(ConfigError::NoUrl)
    }

    fn join(&mut self, other: Self) -> Result<(), &'static str> {
        let (Form::Direct(seeds), Form::Direct(more)) = (&mut self.form, other.form) else {
            return Err("Sentinels are named in one URL, and nothing beside them");
        };
        if self.tls != other.tls {
            return Err("either all over TLS or none");
        }
        if self.database != other.database {
            return Err("another database than in the first URL");
        }
        if self.password.is_empty() && self.username.is_empty() {
            (self.username, self.password) = (other.username, other.password);
        } else if !other.password.is_empty() && (&self.username, &self.password) != (&other.username, &other.password) {
            return Err("another user or password than in the first URL");
        }
        for seed in more {
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
        }
        if seeds.len() > HOSTS_MAX { Err("too many") } else { Ok(()) }
    }
}

fn parse(url: &str) -> Result<Target, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("it has no scheme")?;
    let (tls, sentinel) = match scheme {
        "redis" => (false, false),
        "rediss" => (true, false),
        "redis+sentinel" => (false, true),
        "rediss+sentinel" => (true, true),
        _ => return Err("its scheme is none of redis, rediss, redis+sentinel, rediss+sentinel"),
    };
    if rest.contains(['?', '#']) {
        return Err("it has a query or fragment; reserved characters of a password are percent-encoded");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (username, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (username, password) = (decoded(username)?, decoded(password)?);
    let (form, database) = if sentinel {
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err("the name of the master is missing: redis+sentinel://host:26379/name");
        }
        let sentinels = hosts.split(',').map(|host| address(host, SENTINEL_PORT)).collect::<Result<Vec<_>, _>>()?;
        if sentinels.len() > HOSTS_MAX {
            return Err("too many Sentinels");
        }
        (Form::Sentinel { sentinels, master: decoded(master)? }, database)
    } else {
        (Form::Direct(vec![address(hosts, PORT)?]), path)
    };
    let database = match database.trim_end_matches('/') {
        "" => 0,
        digits => digits.parse().map_err(|_| "its database is not a number")?,
    };
    Ok(Target { form, tls, username, password, database })
}

fn address(text: &str, default: u16) -> Result<Address, &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("a bracket is not closed")?;
        host.parse::<Ipv6Addr>().map_err(|_| "no IPv6 address in its brackets")?;
        let port =
            if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("no port after the bracket")?) };
        (host, port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(named) {
        return Err("its host is not the name or address of one");
    }
    let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| "its port is not one"))?;
    if port == 0 {
        return Err("its port is not one");
    }
    Ok(Address { host: host.to_owned(), port })
}

/// As servers write addresses in redirections: `host:port`, IPv6 without brackets. Without a host, it is `asked`'s.
pub(super) fn announced(text: &str, asked: &Address) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(at(host, port, asked))
}

/// `host` as a server announces it, or that of who was `asked` where it announces none.
pub(super) fn at(host: &str, port: u16, asked: &Address) -> Address {
    let host = if host.is_empty() || host == "?" { &asked.host } else { host };
    Address { host: host.to_owned(), port }
}

fn decoded(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "a percent sign is not followed by two hexadecimal digits";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(WRONG);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).map_err(|_| WRONG)?);
    }
    String::from_utf8(bytes).map_err(|_| "its user, password or master is not in UTF-8")
}

/// The URL without its password.
pub(super) fn masked(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let Some(end) = url[start..].rfind('@').map(|at| start + at) else { return url.to_owned() };
    match url[start..end].find(':') {
        Some(colon) => format!("{}:***{}", &url[..start + colon], &url[end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(urls: &[&str]) -> Result<Target, String> {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        Target::of(&urls).map_err(|error| error.to_string())
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn one_server() {
        let target = of(&["redis://localhost"]).expect("a URL");
        assert_eq!(target.form, Form::Direct(vec![at("localhost", 6379)]));
        assert!(!target.tls && target.username.is_empty() && target.password.is_empty() && target.database == 0);
        let target = of(&["rediss://me:p%40ss%3A@[::1]:7000/3"]).expect("a URL");
        assert_eq!(target.form, Form::Direct(vec![at("::1", 7000)]));
        assert_eq!((target.username.as_str(), target.password.as_str()), ("me", "p@ss:"));
        assert!(target.tls && target.database == 3);
        assert_eq!(of(&["redis://:secret@h/"]).expect("a URL").password, "secret");
    }

    #[test]
    fn several_agree() {
        let target = of(&["redis://a", "redis://u:p@b:1", "redis://a:6379"]).expect("URLs");
        assert_eq!(target.form, Form::Direct(vec![at("a", 6379), at("b", 1)]));
        assert_eq!(target.password, "p");
        for wrong in [
            &["redis://a", "rediss://b"][..],
            &["redis://a/1", "redis://b/2"],
            &["redis://u:p@a", "redis://u:q@b"],
            &["redis://a", "redis+sentinel://b/m"],
        ] {
            of(wrong).expect_err("they do not agree");
        }
        assert_eq!(of(&[]), Err("no URL of Redis".to_owned()));
    }

    #[test]
    fn sentinels() {
        let target = of(&["redis+sentinel://u:p@a,b:1,[::2]:3/my%20master/4"]).expect("a URL");
        let sentinels = vec![at("a", 26379), at("b", 1), at("::2", 3)];
        assert_eq!(target.form, Form::Sentinel { sentinels, master: "my master".to_owned() });
        assert_eq!((target.database, target.username.as_str()), (4, "u"));
        of(&["redis+sentinel://a,b"]).expect_err("no master");
    }

    #[test]
    fn errors_name_the_url_and_mask_the_password() {
        assert_eq!(
            of(&["redis://u:secret@host:port"]),
            Err(r#"Redis URL "redis://u:***@host:port": its port is not one"#.to_owned())
        );
        for wrong in [
            "host",
            "http://host",
            "redis://",
            "redis://h:0",
            "redis://h:1/x",
            "redis://h?a=b",
            "redis://:%zz@h",
            "redis://a,b",
            "redis://[::g]",
            "redis://[::1",
            "redis://h h",
        ] {
            of(&[wrong]).expect_err(wrong);
        }
        assert_eq!(masked("redis://u:a@b:c@host"), "redis://u:***@host");
        assert_eq!(masked("redis://user@host"), "redis://user@host");
    }

    #[test]
    fn announced_addresses() {
        let asked = at("asked", 1);
        assert_eq!(announced("10.0.0.1:7000", &asked), Some(at("10.0.0.1", 7000)));
        assert_eq!(announced(":7000", &asked), Some(at("asked", 7000)));
        assert_eq!(announced("::1:7000", &asked), Some(at("::1", 7000)));
        assert_eq!(announced("host", &asked), None);
        assert_eq!(announced("host:0", &asked), None);
    }

    proptest! {
        #[test]
        fn prop_garbage_never_panics(url in "(redis|rediss|redis\\+sentinel)?(://)?\\PC*", rest: String) {
            let _ = (parse(&url), parse(&rest), masked(&url), masked(&rest));
            let _ = announced(&rest, &at("h", 1));
        }

        #[test]
        fn prop_a_password_is_never_told(password in "[a-z]{12}", host in "\\PC*") {
            let error = of(&[&format!("redis://u:{password}@{host} ")]).expect_err("a space");
            prop_assert!(!error.contains(&password));
        }

        #[test]
        fn prop_addresses_are_read_as_they_are_written(host in "[a-z0-9.-]{1,20}", port in 1u16..) {
            let address = at(&host, port);
            prop_assert_eq!(super::address(&address.to_string(), 1), Ok(address));
        }
    }
}
