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
        self.counting(lines).map_or(Presented::Nothing, |(_, presented)| presented)
    }

    /// The field that counts, and what it carries.
    fn counting<'a>(&self, lines: impl Fn(&HeaderName) -> Lines<'a>) -> Option<(&HeaderName, Presented<'a>)> {
        self.names.iter().find_map(|name| match lines(name) {
            Lines::None => None,
            Lines::One(line) => credential(name, line).map(|credential| (name, Presented::Credential(credential))),
            Lines::Several => Some((name, Presented::Several)),
        })
    }

    /// See [`super::Gate::take_off`].
    pub(super) fn take_off(&self, headers: &mut HeaderMap) {
        if self.forward_credentials {
            return;
        }
        let counting = self.counting(|name| Lines::of(headers, name));
        let is_own = matches!(counting, Some((name, Presented::Credential(_))) if *name == LARDER_KEY);
        let own = is_own.then(|| headers.remove(LARDER_KEY)).flatten();
        for name in &self.names {
            match (&own, Lines::of(headers, name)) {
                (_, Lines::None) => {}
                // A client that shows its key twice shows it to the gateway, whatever else is in that field.
                (Some(own), Lines::One(_) | Lines::Several) => {
                    let own = own.as_bytes().trim_ascii();
                    take_lines_off(headers, name, |line| credential(name, line) == Some(own));
                }
                (None, Lines::One(line)) if credential(name, line).is_none() => {}
                (None, Lines::One(_) | Lines::Several) => drop(headers.remove(name)),
            }
        }
    }
}

/// Takes off the lines of a field that are to go.
fn take_lines_off(headers: &mut HeaderMap, name: &HeaderName, goes: impl Fn(&[u8]) -> bool) {
    let stays = |line: &&HeaderValue| !goes(line.as_bytes());
    let left: Vec<_> = headers.get_all(name).iter().filter(stays).cloned().collect();
    headers.remove(name);
    for line in left {
        headers.append(name, line);
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

    const USUAL: [&str; 3] = ["Larder-Key", "Authorization", "x-api-key"];

    fn fields(names: [&str; 3], forward_credentials: bool) -> Fields {
        let fields = names.map(str::to_owned).to_vec();
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
        of_fields(USUAL, lines)
    }

    fn of_fields(names: [&str; 3], lines: &[(&'static str, &'static str)]) -> (Option<&'static str>, Vec<String>) {
        let mut headers = headers(lines);
        let fields = fields(names, false);
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
        // A field is told once for each of its lines.
        let mut left: Vec<_> = headers.iter().map(|(name, _)| name.to_string()).collect();
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
        let lines = [("larder-key", "a"), ("x-api-key", "a"), ("x-api-key", "b"), ("x-api-key", "a")];
        assert_eq!(of(&lines), (Some("a"), left(&["x-api-key"])), "in none of its lines");
    }

    #[test]
    fn where_another_field_counts_none_is_the_origins() {
        let names = ["Authorization", "Larder-Key", "x-api-key"];
        let lines = [("authorization", "Bearer a"), ("larder-key", "x"), ("x-api-key", "b")];
        assert_eq!(of_fields(names, &lines), (Some("a"), vec![]));
        let other = [("authorization", "Basic a"), ("larder-key", "x"), ("x-api-key", "b")];
        assert_eq!(of_fields(names, &other), (Some("x"), left(&["authorization", "x-api-key"])));
    }

    #[test]
    fn two_lines_are_none() {
        assert_eq!(of(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]).0, Some("several"));
    }

    #[test]
    fn what_is_to_go_on_goes_on() {
        let mut headers = headers(&[("authorization", "Bearer a")]);
        fields(USUAL, true).take_off(&mut headers);
        assert!(headers.contains_key("authorization"));
    }
}
