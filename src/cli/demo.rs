//! `larder demo`: a gateway, an origin of its own to stand before, and what the cache does for it.
//!
//! Nothing outside this process is needed or touched; ports are free ones, and what is written goes to a temporary
//! directory.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, time::Instant};

use super::{
    admin_client::{self, AdminClient},
    args::AdminTls,
    demo_origin::Origin,
};
use crate::{
    app,
    config::{self, Config},
    proxy::purge::Receipt,
    telemetry::Logs,
};

/// Clients that ask for the same at once.
const CROWD: usize = 100;

/// Why the demonstration came to an end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration of the demonstration was refused.
    #[error("the demo's configuration is not valid")]
    Config(#[from] config::Errors),
    /// The gateway did not start.
    #[error("the gateway did not start")]
    Start(#[from] app::Error),
    /// No port, no directory, or no connection.
    #[error("the demo cannot run")]
    Io(#[from] io::Error),
    /// A request failed.
    #[error("a request of the demo failed")]
    Http(#[from] hyper::Error),
    /// The purge failed.
    #[error(transparent)]
    Admin(#[from] admin_client::Error),
}

/// Runs the demonstration; with `keep`, the gateway goes on until Ctrl-C.
pub async fn run(keep: bool) -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let origin = Origin::start().await?;
    let config = Config::parse("demo", &settings(origin.address(), directory.path(), keep))?;
    let gateway = app::start(&config, Logs::default(), None).await?;
    let shown = show(&origin, gateway.data, gateway.admin).await;
    if shown.is_ok() && keep {
        invite(gateway.data, gateway.admin);
        tokio::signal::ctrl_c().await?;
    }
    gateway.stop().await;
    shown
}

/// Whoever stays to look around gets the usual addresses, so that the commands of the documents fit.
fn settings(origin: SocketAddr, directory: &std::path::Path, keep: bool) -> String {
    let (data, admin) = if keep { (8080, 8081) } else { (0, 0) };
    // A JSON string is a TOML string.
    let directory = json!(directory.to_string_lossy());
    format!(
        "data_dir = {directory}\n\
         [listen]\ndata = \"127.0.0.1:{data}\"\nadmin = \"127.0.0.1:{admin}\"\n\
         [log]\naccess = false\n\
         [[route]]\nname = \"demo\"\nupstream = \"http://{origin}\"\n"
    )
}

fn invite(data: SocketAddr, admin: SocketAddr) {
    println!("\nThe gateway goes on until Ctrl-C. Try:");
    println!("  curl -i http://{data}/slow");
    println!("  curl -N http://{data}/events");
    println!("  curl -d '{{\"tags\":[\"counter\"]}}' http://{admin}/purge");
    println!("  larder explain --admin http://{admin} http://{data}/counter");
    println!("  larder stats --admin http://{admin}");
}

/// The scenes, each with its line.
async fn show(origin: &Origin, data: SocketAddr, admin: SocketAddr) -> Result<(), Error> {
    println!("{}", Line::TITLE);
    let scene = Scene { origin, data };
    scene.get("a slow answer", "/slow").await?;
    scene.get("the same again", "/slow").await?;
    scene.crowd("100 clients at once", "/slow?crowd").await?;
    scene.get("10 events, one each 50 ms", "/events").await?;
    scene.get("the same events again", "/events").await?;
    scene.get("a counter, tagged", "/counter").await?;
    scene.get("the same again", "/counter").await?;
    let admin = AdminClient::to(&format!("http://{admin}"), None, &AdminTls::default())?;
    let receipt: Receipt = admin.post("/purge", &json!({"tags": ["counter"]})).await?;
    let took = Duration::from_secs_f64(receipt.duration_ms / 1e3);
    let line =
        Line { what: "purge of its tag", cache: format!("purge {}", receipt.seq), calls: 0, first: took, all: took };
    println!("{line}");
    scene.get("the counter after it", "/counter").await
}

/// Where requests go, and who counts them.
struct Scene<'a> {
    origin: &'a Origin,
    data: SocketAddr,
}

impl Scene<'_> {
    async fn get(&self, what: &'static str, path: &str) -> Result<(), Error> {
        let before = self.origin.calls();
        let answer = Answer::of(self.data, path).await?;
        let calls = self.origin.calls() - before;
        println!("{}", Line { what, cache: answer.cache, calls, first: answer.first, all: answer.all });
        Ok(())
    }

    async fn crowd(&self, what: &'static str, path: &str) -> Result<(), Error> {
        let before = self.origin.calls();
        let answers = try_join_all((0..CROWD).map(|_| Answer::of(self.data, path))).await?;
        let calls = self.origin.calls() - before;
        let slowest = |time: fn(&Answer) -> Duration| answers.iter().map(time).max().unwrap_or_default();
        let good = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
        let cache = format!("{good} answers");
        println!(
            "{}",
            Line { what, cache, calls, first: slowest(|answer| answer.first), all: slowest(|answer| answer.all) }
        );
        Ok(())
    }
}

/// What a client got, and when.
struct Answer {
    status: StatusCode,
    cache: String,
    first: Duration,
    all: Duration,
}

impl Answer {
    /// Over a connection of its own, that is open before the clock starts.
    async fn of(data: SocketAddr, path: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(data).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header(header::HOST, data.to_string()).body(Empty::<Bytes>::new());
        let begun = Instant::now();
        let response = sender.send_request(request.map_err(io::Error::other)?).await?;
        let status = response.status();
        let cache = cache_word(response.headers());
        let mut body = response.into_body();
        let mut first = None;
        while let Some(frame) = body.frame().await {
            frame?;
            first.get_or_insert_with(|| begun.elapsed());
        }
        let all = begun.elapsed();
        Ok(Self { status, cache, first: first.unwrap_or(all), all })
    }
}

/// `Cache-Status` without the name of the cache.
fn cache_word(headers: &http::HeaderMap) -> String {
    let line = headers.get("cache-status").and_then(|line| line.to_str().ok()).unwrap_or_default();
    let parameters = line.split_once(';').map_or("", |(_, parameters)| parameters);
    let mut shown = parameters.split(';').map(str::trim).filter(|each| *each == "hit" || each.starts_with("fwd="));
    shown.next().unwrap_or("-").to_owned()
}

/// One line of the table.
struct Line {
    what: &'static str,
    cache: String,
    calls: u64,
    first: Duration,
    all: Duration,
}

impl Line {
    const TITLE: &'static str = "request                     cache           origin calls   first byte    last byte";
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, cache, calls, .. } = self;
        let millis = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        let (first, all) = (millis(self.first), millis(self.all));
        write!(f, "{what:<28}{cache:<16}{calls:>12}{first:>13}{all:>13}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_below_their_title() {
        let time = Duration::from_micros(1500);
        let line =
            Line { what: "a slow answer", cache: "hit".to_owned(), calls: 1, first: time, all: time }.to_string();
        assert_eq!(line.len(), Line::TITLE.len());
        assert!(line.ends_with("1.50 ms      1.50 ms"), "{line}");
    }

    #[test]
    fn the_word_of_the_cache() {
        let word = |line| cache_word(&[(http::HeaderName::from_static("cache-status"), line)].into_iter().collect());
        assert_eq!(word(http::HeaderValue::from_static("larder; hit; ttl=30; detail=L1")), "hit");
        assert_eq!(word(http::HeaderValue::from_static("larder; fwd=uri-miss; stored")), "fwd=uri-miss");
        assert_eq!(word(http::HeaderValue::from_static("larder")), "-");
    }

    #[test]
    fn settings_are_quoted() {
        let text = settings(([127, 0, 0, 1], 9).into(), std::path::Path::new("/tmp/a\"b"), true);
        assert!(text.starts_with("data_dir = \"/tmp/a\\\"b\"\n"), "{text}");
    }

    #[tokio::test]
    async fn the_origin_is_measured_as_clients_see_it() {
        let origin = Origin::start().await.expect("an origin");
        let slow = Answer::of(origin.address(), "/slow").await.expect("an answer");
        assert_eq!((slow.status, slow.cache.as_str(), origin.calls()), (StatusCode::OK, "-", 1));
        assert!(slow.first >= Duration::from_millis(300));
        let events = Answer::of(origin.address(), "/events").await.expect("events");
        assert!(events.all >= events.first + Duration::from_millis(400), "nine waits between ten events");
    }
}
