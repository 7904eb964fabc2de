//! What a request presents: which of its fields carries a key, and what becomes of those that do.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::config::Access;
use crate::object::plain::Plain;

/// The field that is the gateway's own: where it is there, the others are left to the origin.
pub const LARDER_KEY: HeaderName = HeaderName::from_static("larder-key");

/// The fields of a route that may carry a key.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    names: Box<[HeaderName]>,
    pub(super) forward_credentials: bool,
}

/// The lines of one field of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines<'a> {
    /// There is none.
    None,
    /// There is one.
    One(&'a [u8]),
    /// There are several: which of them is meant, nobody can tell.
    Several,
}

/// What a request presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// Nothing.
    Nothing,
    /// This key or token.
    Credential(&'a [u8]),
    /// Several in one field.
    Several,
}

impl<'a> Lines<'a> {
    /// Those of a field in a map.
    pub fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        match (lines.next(), lines.next()) {
            (None, _) => Self::None,
            (Some(line), None) => Self::One(line),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// The same of a plain request.
    pub fn of_plain(request: &Plain<'a>, name: &HeaderName) -> Self {
        let mut lines = request.get_all(name.as_str());
        match (lines.next(), lines.next()) {
            (None, _) => Self::None,
            (Some(line), None) => Self::One(line),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

impl Fields {
    /// Those that the configuration names, which has validated them.
    pub(super) fn new(access: &Access) -> Self {
        let names = access.fields.iter().filter_map(|name| name.parse().ok()).collect();
        Self { names, forward_credentials: access.forward_credentials }
    }

    /// What the first of the fields that carries something carries.
    pub(super) fn presented<'a>(&self, lines: impl Fn(&HeaderName) -> Lines<'a>) -> Presented<'a> {
        let carried = |name: &HeaderName| match lines(name) {
            Lines::None => None,
            Lines::One(line) => credential(name, line).map(Presented::Credential),
            Lines::Several => Some(Presented::Several),
        };
        self.names.iter().find_map(carried).unwrap_or(Presented::Nothing)
    }

    /// See [`super::Gate::take_off`].
    pub(super) fn take_off(&self, headers: &mut HeaderMap) {
        if self.forward_credentials {
            return;
        }
        let own = self.names.contains(&LARDER_KEY).then(|| headers.remove(LARDER_KEY)).flatten();
        for name in &self.names {
            let is_ours = match (&own, Lines::of(headers, name)) {
                (_, Lines::None) => false,
                // A client that shows its key twice shows it to the gateway.
                (Some(own), Lines::One(line)) => credential(name, line) == Some(own.as_bytes().trim_ascii()),
                (Some(_), Lines::Several) => false,
                (None, Lines::One(line)) => credential(name, line).is_some(),
                (None, Lines::Several) => true,
            };
            if is_ours {
                headers.remove(name);
            }
        }
    }
}

/// What a field carries: `Authorization` a bearer token, and nothing for the gateway where it is of another scheme.
fn credential<'a>(name: &HeaderName, line: &'a [u8]) -> Option<&'a [u8]> {
    if *name != header::AUTHORIZATION && *name != header::PROXY_AUTHORIZATION {
        return Some(line.trim_ascii());
    }
    let (scheme, rest) = line.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::Clients;

    fn fields(forward_credentials: bool) -> Fields {
        let fields = ["Larder-Key", "Authorization", "x-api-key"].map(str::to_owned).to_vec();
        let (clients, issuers) = (Clients::Tenants, Vec::new());
        Fields::new(&Access { clients, fields, issuers, forward_credentials, names_max: 1 })
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        headers
    }

    /// What is presented, and which fields are left when it has been taken off.
    fn of(lines: &[(&'static str, &'static str)]) -> (Option<&'static str>, Vec<String>) {
        let mut headers = headers(lines);
        let fields = fields(false);
        let presented = match fields.presented(|name| Lines::of(&headers, name)) {
            Presented::Nothing => None,
            Presented::Several => Some("several"),
            Presented::Credential(credential) => {
                let same = |line: &&'static str| line.ends_with(std::str::from_utf8(credential).expect("text"));
                let line = lines.iter().map(|(_, line)| *line).find(same).expect("a line has it");
                Some(&line[line.len() - credential.len()..])
            }
        };
        fields.take_off(&mut headers);
        let mut left: Vec<_> = headers.keys().map(ToString::to_string).collect();
        left.sort();
        (presented, left)
    }

    fn left(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_first_field_that_carries_something_counts() {
        assert_eq!(of(&[]), (None, vec![]));
        assert_eq!(of(&[("authorization", "Bearer a"), ("accept", "x")]), (Some("a"), left(&["accept"])));
        assert_eq!(of(&[("authorization", "bearer  a")]), (Some("a"), vec![]));
        assert_eq!(of(&[("x-api-key", "b"), ("authorization", "Bearer a")]), (Some("a"), vec![]));
        assert_eq!(of(&[("x-api-key", "b")]), (Some("b"), vec![]));
    }

    #[test]
    fn another_scheme_is_for_the_origin() {
        assert_eq!(of(&[("authorization", "Basic a")]), (None, left(&["authorization"])));
        let both = [("authorization", "Basic a"), ("x-api-key", "b")];
        assert_eq!(of(&both), (Some("b"), left(&["authorization"])));
    }

    #[test]
    fn beside_the_own_field_others_are_left_alone() {
        let both = [("larder-key", "a"), ("authorization", "Bearer provider"), ("x-api-key", "c")];
        assert_eq!(of(&both), (Some("a"), left(&["authorization", "x-api-key"])));
        let twice = [("larder-key", "a"), ("authorization", "Bearer a"), ("x-api-key", "a")];
        assert_eq!(of(&twice), (Some("a"), vec![]), "the same key is not shown to the origin either");
    }

    #[test]
    fn two_lines_are_none() {
        assert_eq!(of(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]).0, Some("several"));
    }

    #[test]
    fn what_is_to_go_on_goes_on() {
        let mut headers = headers(&[("authorization", "Bearer a")]);
        fields(true).take_off(&mut headers);
        assert!(headers.contains_key("authorization"));
    }
}
