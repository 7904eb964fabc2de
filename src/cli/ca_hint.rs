//! How programs are told to trust the authority: for a shell to run, and for people to read.

use std::{fmt::Write, net::SocketAddr, path::Path};

use crate::intercept::Store;

/// Variables that name a file which takes the place of the system's authorities, and who reads them.
const BUNDLES: [(&str, &str); 7] = [
    ("SSL_CERT_FILE", "OpenSSL, Go, Ruby, Python's ssl and httpx, Rust"),
    ("REQUESTS_CA_BUNDLE", "Python's requests"),
    ("CURL_CA_BUNDLE", "curl, requests"),
    ("GIT_SSL_CAINFO", "git; or: git config --global http.sslCAInfo FILE"),
    ("PIP_CERT", "pip"),
    ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "gRPC"),
    ("AWS_CA_BUNDLE", "the tools and SDKs of AWS"),
];

/// Variables that name a file beside them.
const ADDITIONS: [(&str, &str); 2] = [("NODE_EXTRA_CA_CERTS", "Node"), ("DENO_CERT", "Deno")];

/// What a shell has to run.
pub(super) fn shell(store: &Store, data: SocketAddr) -> String {
    let mut text = format!("export HTTPS_PROXY={0}\nexport https_proxy={0}\n", proxy(data));
    text.push_str("export NODE_USE_ENV_PROXY=1\n");
    for (variable, _) in BUNDLES {
        let _ = writeln!(text, "export {variable}={}", quoted(&store.bundle()));
    }
    for (variable, _) in ADDITIONS {
        let _ = writeln!(text, "export {variable}={}", quoted(&store.certificate()));
    }
    text
}

/// All there is to say.
pub(super) fn text(store: &Store, data: SocketAddr) -> String {
    let (certificate, bundle) = (store.certificate(), store.bundle());
    let (file, proxy) = (certificate.display(), proxy(data));
    let mut text = format!(
        "For the programs of one shell (all of this: eval \"$(larder ca install-hint --shell)\"):\n\n\
         \x20 HTTPS_PROXY={proxy}\n\
         \x20     where programs send their https; Node from 22.21 also needs NODE_USE_ENV_PROXY=1\n\n\
         \x20 {}\n",
        bundle.display()
    );
    rows(&mut text, &BUNDLES);
    let _ = write!(text, "\n  {file}\n");
    rows(&mut text, &ADDITIONS);
    let _ = write!(
        text,
        "\nThe first file holds the authorities of this system and the CA, for programs that take one file in their\n\
         place; the second holds the CA alone. `larder ca install-hint` writes the first anew.\n\n\
         For all programs that ask the system (as root, or with sudo):\n\n\
         \x20 Debian, Ubuntu   cp {file} /usr/local/share/ca-certificates/larder.crt && update-ca-certificates\n\
         \x20 Fedora, RHEL     cp {file} /etc/pki/ca-trust/source/anchors/larder.pem && update-ca-trust\n\
         \x20 Alpine           cp {file} /usr/local/share/ca-certificates/larder.crt && update-ca-certificates\n\
         \x20 macOS            security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}\n\
         \x20 Windows          certutil -addstore -f ROOT ca.pem\n\
         \x20 Java             keytool -importcert -cacerts -alias larder -file {file}\n\n\
         The CA can speak for the hosts of intercept.hosts alone (larder ca show). Who trusts it trusts whoever has its\n\
         key: keep {} to yourself, and hand out nothing but {file}.\n",
        store.key().display()
    );
    text
}

fn rows(text: &mut String, variables: &[(&str, &str)]) {
    for (variable, readers) in variables {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "      {variable:<33} {readers}");
    }
}

/// Where this machine's programs reach the gateway.
fn proxy(data: SocketAddr) -> String {
    let mut reached = data;
    if data.ip().is_unspecified() {
        reached.set_ip(if data.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{reached}")
}

/// As one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_can_run_it() {
        let store = Store::of(Path::new("/it's here"));
        let text = shell(&store, "0.0.0.0:8080".parse().expect("an address"));
        assert!(text.starts_with("export HTTPS_PROXY=http://127.0.0.1:8080\n"), "{text}");
        assert!(text.contains("export SSL_CERT_FILE='/it'\\''s here/ca/ca-bundle.pem'\n"), "{text}");
        assert!(text.contains("export NODE_EXTRA_CA_CERTS='/it'\\''s here/ca/ca.pem'\n"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("export ")), "{text}");
    }

    #[test]
    fn people_are_told_the_same() {
        let store = Store::of(Path::new("/data"));
        let text = text(&store, "[::]:8080".parse().expect("an address"));
        assert!(text.contains("HTTPS_PROXY=http://[::1]:8080"), "{text}");
        for (variable, _) in BUNDLES.iter().chain(&ADDITIONS) {
            assert!(text.contains(variable), "{variable}");
        }
    }
}
