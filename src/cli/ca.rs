//! `larder ca`: the authority that lets the tunnels of some hosts be opened. Needs no gateway, and asks none.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use serde_json::json;

use super::{
    args::{Ca, CaAction, CaPlace},
    ca_hint,
};
use crate::{
    config::{self, Config, EXIT_CODE},
    intercept::{self, About, Authority, Bundled, Error, Hosts, Store},
};

/// Does what was asked for. Returns the exit code.
///
/// # Errors
/// Where it cannot be done.
pub fn run(args: &Ca) -> Result<u8, Error> {
    let (CaAction::Init { place, .. } | CaAction::Show { place, .. } | CaAction::InstallHint { place, .. }) =
        &args.action;
    let config = match load(place) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(EXIT_CODE);
        }
    };
    let store = Store::of(config.data_path());
    let text = match &args.action {
        CaAction::Init { force, .. } => init(&store, &hosts(&config), *force)?,
        CaAction::Show { json, .. } => show(&store, &hosts(&config), *json)?,
        CaAction::InstallHint { shell, .. } => hint(&store, &config, *shell)?,
    };
    // A reader that has gone away is no error of ours.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(0)
}

fn load(place: &CaPlace) -> Result<Config, config::Errors> {
    config::load(&place.sources())
}

fn hosts(config: &Config) -> Hosts {
    config.intercept.hosts().expect("a configuration that was loaded has valid hosts")
}

fn init(store: &Store, hosts: &Hosts, force: bool) -> Result<String, Error> {
    let about = Authority::make(store, hosts, force)?;
    let bundled = bundle(store)?;
    let mut text = described(store, &about);
    text.push_str(
        "\nNext: `larder ca install-hint` says how programs are told to trust it. A gateway that runs has to be started \
         again.\n",
    );
    warn_of_no_system(bundled);
    Ok(text)
}

fn show(store: &Store, hosts: &Hosts, json: bool) -> Result<String, Error> {
    let about = About::read(store)?;
    if json {
        return Ok(format!("{:#}\n", as_json(store, &about)));
    }
    let mut text = described(store, &about);
    for pattern in hosts.iter().filter(|pattern| !about.covers(pattern)) {
        text.push_str(&format!(
            "{pattern} is not among them, and is not intercepted before `larder ca init --force`\n"
        ));
    }
    if let Err(error) = Authority::load(store) {
        text.push_str(&format!("of no use: {error}\n"));
    }
    Ok(text)
}

/// The bundle is made anew: what the system trusts may have changed.
fn hint(store: &Store, config: &Config, shell: bool) -> Result<String, Error> {
    let bundled = bundle(store)?;
    warn_of_no_system(bundled);
    Ok(if shell { ca_hint::shell(store, config.listen.data) } else { ca_hint::text(store, config.listen.data) })
}

fn bundle(store: &Store) -> Result<Bundled, Error> {
    intercept::bundle(store)
}

fn warn_of_no_system(bundled: Bundled) {
    if bundled.of_system == 0 {
        eprintln!(
            "larder: no certificate authorities of the system were found: the bundle holds the CA alone, so programs \
             that are given the bundle trust nothing but intercepted hosts"
        );
    }
}

fn described(store: &Store, about: &About) -> String {
    let permitted = match &about.permitted {
        Some(names) => names.join(", "),
        None => "any host: nothing binds it".to_owned(),
    };
    format!(
        "name         {}\ncertificate  {}\nkey          {}\nbundle       {}\nSHA-256      {}\nvalid        {} to {}\n\
         signs for    {permitted}\n",
        about.name,
        store.certificate().display(),
        store.key().display(),
        store.bundle().display(),
        about.fingerprint,
        time(about.not_before),
        time(about.not_after),
    )
}

fn as_json(store: &Store, about: &About) -> serde_json::Value {
    json!({
        "name": about.name,
        "certificate": store.certificate(),
        "key": store.key(),
        "bundle": store.bundle(),
        "sha256": about.fingerprint,
        "not_before": time(about.not_before),
        "not_after": time(about.not_after),
        "permitted": about.permitted,
    })
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
