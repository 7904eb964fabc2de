//! HTTPS origins.

use std::io::Write;

use http::Version;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An HTTPS server with a certificate of its own making.
struct Secure {
    url: String,
    authority: tempfile::NamedTempFile,
}

impl Secure {
    async fn run(protocols: &[&str]) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut authority = tempfile::NamedTempFile::new().unwrap();
        authority.write_all(certified.cert.pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));
        Self { url, authority }
    }

    fn client(&self, change: impl FnOnce(&mut Config)) -> Client {
        let mut config = Config { tls_ca_file: Some(self.authority.path().to_owned()), ..config() };
        change(&mut config);
        Client::new(&self.url, config)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((tcp, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = service_fn(|request: http::Request<Incoming>| async move {
                let version = format!("{:?}", request.version());
                Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<Bytes>::from(version)))
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let both = Secure::run(&["h2", "http/1.1"]).await;
    let client = both.client(|_| ());
    let response = client.get().await.unwrap();
    assert_eq!(response.version, Version::HTTP_2);
    assert_eq!(text(response).await, "HTTP/2.0");
    let upgrading = client.send(OriginRequest { upgrade: true, ..get() }).await.unwrap();
    assert_eq!(text(upgrading).await, "HTTP/1.1", "upgrades need HTTP/1");
    assert_eq!(both.client(|config| config.h2 = false).text().await, "HTTP/1.1");
    let old = Secure::run(&["http/1.1"]).await;
    let client = old.client(|_| ());
    assert_eq!(client.text().await, "HTTP/1.1");
    client.text().await;
    assert_eq!(client.origins.metrics.reused.get(), 1);
    assert_eq!(Secure::run(&[]).await.client(|_| ()).text().await, "HTTP/1.1");
}

#[tokio::test]
async fn a_certificate_is_verified_unless_told_otherwise() {
    let server = Secure::run(&["h2", "http/1.1"]).await;
    let error = server.client(|config| config.tls_ca_file = None).failure().await;
    assert_eq!((error.proxy_status(), error.status().as_u16()), ("tls_certificate_error", 502));
    assert!(error.unseen());
    let trusting = |config: &mut Config| (config.tls_ca_file, config.tls_verify) = (None, false);
    assert_eq!(server.client(trusting).text().await, "HTTP/2.0");
    let by_address = server.url.replace("localhost", "127.0.0.1");
    let config = Config { tls_ca_file: Some(server.authority.path().to_owned()), ..config() };
    let error = Client::new(&by_address, config).failure().await;
    assert_eq!(error.kind(), Kind::TlsCertificate, "it does not name the address");
}

#[tokio::test]
async fn an_origin_without_tls_is_a_tls_error() {
    let script = Script::run(|_, mut peer| async move {
        peer.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        peer.closed().await;
    });
    let script = script.await;
    let plain = script.url.replace("http:", "https:");
    let error = Client::new(&plain, config()).failure().await;
    assert_eq!((error.proxy_status(), error.status().as_u16()), ("tls_protocol_error", 502));
    assert!(error.unseen());
}

#[test]
fn unusable_authorities_are_reported() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for path in [empty.path(), std::path::Path::new("/does/not/exist.pem")] {
        let config = Config { tls_ca_file: Some(path.to_owned()), ..config() };
        let error = Upstream::new(&["https://o".to_owned()], config, TargetPolicy::Any).expect_err("no authorities");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
