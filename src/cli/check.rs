//! `larder check`: the routes of a configuration, or everything that is wrong with it. Starts nothing.

use std::io::{self, Write};

use crate::{
    config::{Config, EXIT_CODE, ResolvedRoute, Sources, load},
    proxy::config::OneOrMany,
};

/// Checks what `sources` say. Routes go to `out`, errors and warnings to `err`. Returns the exit code.
pub fn run(sources: &Sources, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    match load(sources) {
        Ok(config) => {
            summary(&config, out)?;
            for warning in config.warnings() {
                writeln!(err, "warning: {warning}")?;
            }
            Ok(0)
        }
        Err(errors) => {
            writeln!(err, "{errors}")?;
            Ok(EXIT_CODE)
        }
    }
}

fn summary(config: &Config, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "data listener   {}", config.listen.data)?;
    writeln!(out, "admin listener  {}", config.listen.admin)?;
    writeln!(out, "state           {}", config.data_path().display())?;
    writeln!(out, "memory          {}", config.l1.max_bytes)?;
    let clients = config.forward.clients.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let forward = if config.forward.enabled { format!("for {clients}") } else { "off".to_owned() };
    writeln!(out, "forward proxy   {forward}")?;
    if config.routes().is_empty() {
        return writeln!(out, "no routes");
    }
    writeln!(out, "routes, the first match wins:")?;
    let rows: Vec<_> = config.routes().iter().map(row).collect();
    let widths = [0, 1].map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for [name, requests, rest] in rows {
        writeln!(out, "  {name:0$}  {requests:1$}  {rest}", widths[0], widths[1])?;
    }
    Ok(())
}

/// Name, what it takes, and where that goes.
fn row(resolved: &ResolvedRoute) -> [String; 3] {
    let route = &resolved.route;
    let host = route.host.as_deref().unwrap_or("*");
    let path = route.path.as_deref().unwrap_or("/").trim_end_matches('/');
    let upstream = match &route.upstream {
        OneOrMany::One(url) => url.clone(),
        OneOrMany::Many(urls) => urls.join(", "),
    };
    let overrides: Vec<_> = [("cache", &route.cache), ("origin", &route.origin)]
        .into_iter()
        .flat_map(|(section, overrides)| overrides.keys().map(move |key| format!("{section}.{key}")))
        .collect();
    let overrides = if overrides.is_empty() { String::new() } else { format!("  (own {})", overrides.join(", ")) };
    [route.name.clone(), format!("{host}{path}/*"), format!("-> {upstream}{overrides}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn check(overrides: Overrides, env: &[(&str, &str)]) -> (u8, String, String) {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&Sources { file: None, env, overrides }, &mut out, &mut err).expect("written to memory");
        (code, String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
    }

    #[test]
    fn a_sound_configuration_shows_its_routes() {
        let routes = r#"[{ name = "api", path = "/api", upstream = "http://h", cache = { default_ttl = "1s" } }]"#;
        let overrides = Overrides { upstream: vec!["http://i".to_owned()], ..Overrides::default() };
        let (code, out, err) = check(overrides, &[("LARDER_ROUTE", routes)]);
        assert_eq!((code, &err[..]), (0, ""));
        assert!(out.contains("  api      */api/*  -> http://h  (own cache.default_ttl)\n"), "{out}");
        assert!(out.contains("  default  */*      -> http://i\n"), "{out}");
    }

    #[test]
    fn a_wrong_one_shows_what_is_wrong() {
        let (code, out, err) = check(Overrides::default(), &[("LARDER_L1__MAX_BYTES", "big")]);
        assert_eq!((code, &out[..]), (EXIT_CODE, ""));
        assert!(err.starts_with("LARDER_L1__MAX_BYTES: l1.max_bytes: "), "{err}");
    }

    #[test]
    fn warnings_are_no_errors() {
        let (code, _, err) = check(Overrides::default(), &[("LARDER_ORIGIN__TLS_VERIFY", "false")]);
        assert_eq!(code, 0);
        assert!(err.starts_with("warning: LARDER_ORIGIN__TLS_VERIFY: origin.tls_verify: "), "{err}");
    }
}
