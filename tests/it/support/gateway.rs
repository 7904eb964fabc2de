//! The gateway under test: a process started from the binary, on free ports, with a data directory of its own.
//!
//! ```ignore
//! let gateway = gateway::new().origin(&origin).config("[cache]\ndefault_ttl = '1m'").run().await;
//! let response = gateway.get("/a").await;
//! ```

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{
    client::{self, Request, Response},
    eventually, origin, raw, within,
};

/// A gateway without upstream and with the default configuration.
pub(crate) fn new() -> Builder {
    Builder { upstream: None, config: String::new(), arguments: Vec::new(), token: None, authority: false }
}

/// A gateway that is being described.
#[derive(Clone)]
pub(crate) struct Builder {
    upstream: Option<String>,
    config: String,
    arguments: Vec<String>,
    token: Option<String>,
    authority: bool,
}

impl Builder {
    /// All requests go to `origin`.
    pub(crate) fn origin(self, origin: &origin::Origin) -> Self {
        self.upstream(origin.url())
    }

    /// All requests go to `origin`.
    pub(crate) fn raw_origin(self, origin: &raw::Origin) -> Self {
        self.upstream(origin.url())
    }

    /// All requests go to `url`.
    pub(crate) fn upstream(mut self, url: impl Into<String>) -> Self {
        self.upstream = Some(url.into());
        self
    }

    /// Appends to the configuration file.
    pub(crate) fn config(mut self, toml: impl AsRef<str>) -> Self {
        writeln!(self.config, "{}", toml.as_ref()).expect("a String takes everything");
        self
    }

    /// The admin plane asks for this token, and the tests' own calls carry it.
    pub(crate) fn token(self, token: &str) -> Self {
        let mut builder = self.config(format!("[admin]\ntoken = '{token}'"));
        builder.token = Some(token.to_owned());
        builder
    }

    /// It has an authority for `intercept.hosts`, as `larder ca init` makes it.
    pub(crate) fn authority(mut self) -> Self {
        self.authority = true;
        self
    }

    /// One more command-line argument.
    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts it and waits for both listeners.
    pub(crate) async fn run(self) -> Gateway {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        self.run_in(directory).await
    }

    /// Runs it to its end: for configurations it must refuse.
    pub(crate) async fn refuse(self) -> Refusal {
        let directory = tempfile::tempdir().expect("a temporary directory");
        self.refuse_in(&directory).await
    }

    async fn refuse_in(&self, directory: &TempDir) -> Refusal {
        let mut child = self.spawn(directory.path());
        let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let read = move || {
            let mut output = String::new();
            stderr.read_to_string(&mut output).expect("text");
            stdout.read_to_string(&mut output).expect("text");
            output
        };
        let mut process = Process(child);
        let output = within("the gateway to refuse to start", tokio::task::spawn_blocking(read)).await;
        let status = process.0.wait().expect("a child process");
        Refusal { code: status.code(), output: output.expect("no panic"), config: config_path(directory.path()) }
    }

    async fn run_in(self, directory: Arc<TempDir>) -> Gateway {
        let mut child = self.spawn(directory.path());
        let output = Output::default();
        output.follow(child.stdout.take().expect("piped"));
        output.follow(child.stderr.take().expect("piped"));
        let process = Process(child);
        let data = output.address("data listening on ").await;
        let admin = output.address("admin listening on ").await;
        Gateway { process, output, data, admin, directory, builder: self }
    }

    fn spawn(&self, directory: &Path) -> Child {
        std::fs::write(config_path(directory), &self.config).expect("a writable temporary directory");
        if self.authority && !directory.join("data/ca").exists() {
            make_authority(directory);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        let (config, data) = (config_path(directory), directory.join("data"));
        let defaults: [(&str, &OsStr); 5] = [
            ("--config", config.as_os_str()),
            ("--data-dir", data.as_os_str()),
            ("--listen", "127.0.0.1:0".as_ref()),
            ("--admin", "127.0.0.1:0".as_ref()),
            ("--log", "json".as_ref()),
        ];
        for (flag, value) in defaults {
            if !self.arguments.iter().any(|argument| argument == flag) {
                command.arg(flag).arg(value);
            }
        }
        if let Some(upstream) = &self.upstream {
            command.args(["--upstream", upstream]);
        }
        command.args(&self.arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LARDER_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the gateway's binary")
    }
}

fn make_authority(directory: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(["ca", "init", "--config"]).arg(config_path(directory));
    command.arg("--data-dir").arg(directory.join("data"));
    let made = command.stdin(Stdio::null()).output().expect("the gateway's binary");
    assert!(made.status.success(), "{made:?}");
}

fn config_path(directory: &Path) -> PathBuf {
    directory.join("larder.toml")
}

/// How a gateway ended that would not start.
pub(crate) struct Refusal {
    pub(crate) code: Option<i32>,
    /// Everything it wrote, to both streams.
    pub(crate) output: String,
    /// The configuration file it was given.
    pub(crate) config: PathBuf,
}

/// A child process that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only if the process has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines written so far, and news of further ones.
#[derive(Clone)]
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for Output {
    fn default() -> Self {
        Self { lines: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }
}

impl Output {
    fn follow(&self, stream: impl Read + Send + 'static) {
        let output = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                output.lines.lock().expect("no one panics under this lock").push(line);
                output.changed.send_replace(());
            }
        });
    }

    fn snapshot(&self) -> Vec<String> {
        self.lines.lock().expect("no one panics under this lock").clone()
    }

    async fn find<T>(&self, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let search = async {
            loop {
                if let Some(found) = self.snapshot().iter().find_map(|line| pick(line)) {
                    return found;
                }
                changed.changed().await.expect("the sender lives in self");
            }
        };
        match tokio::time::timeout(super::PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("the gateway did not write {what}, but:\n{}", self.snapshot().join("\n")),
        }
    }

    async fn address(&self, before: &str) -> SocketAddr {
        let pick = |line: &str| {
            let (_, rest) = line.split_once(before)?.1.split_once("://")?;
            let end = rest.find(|c: char| !c.is_ascii_hexdigit() && !".:[]".contains(c)).unwrap_or(rest.len());
            rest[..end].parse().ok()
        };
        self.find(before, pick).await
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    process: Process,
    output: Output,
    data: SocketAddr,
    admin: SocketAddr,
    directory: Arc<TempDir>,
    builder: Builder,
}

impl Gateway {
    /// URL of `path` on the data listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.data)
    }

    /// URL of `path` on the admin listener.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// Address of the data listener.
    pub(crate) fn data(&self) -> SocketAddr {
        self.data
    }

    /// Where it keeps what survives a restart.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What its clients have to trust where it intercepts.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.data_dir().join("ca/ca.pem")
    }

    /// Address of the admin listener, as a URL.
    pub(crate) fn admin_base(&self) -> String {
        format!("http://{}", self.admin)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// GET `path`, on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Response {
        client::get(self.url(path)).send().await
    }

    /// A raw connection to the data listener.
    pub(crate) async fn raw(&self) -> raw::Conn {
        raw::Conn::connect(self.data).await
    }

    /// A call of the admin plane.
    pub(crate) fn admin(&self, method: &str, path: &str) -> Request {
        let request = client::request(method, self.admin_url(path));
        match &self.builder.token {
            Some(token) => request.header("authorization", &format!("Bearer {token}")),
            None => request,
        }
    }

    /// The JSON document at `path` of the admin plane.
    pub(crate) async fn admin_json(&self, path: &str) -> Value {
        let response = self.admin("GET", path).send().await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    /// `POST /purge`; its receipt.
    pub(crate) async fn purge(&self, call: Value) -> Value {
        let response = self.admin("POST", "/purge").json(&call).send().await;
        assert_eq!(response.status, 200, "{call}: {}", response.text());
        response.json()
    }

    /// Purges one path of the data listener.
    pub(crate) async fn purge_path(&self, path: &str) -> Value {
        self.purge(serde_json::json!({ "urls": [self.url(path)] })).await
    }

    /// Returns when so many requests wait for the head of another's fill.
    pub(crate) async fn followers(&self, count: usize) {
        let line = format!("larder_followers_waiting {count}");
        eventually("followers", || async {
            let metrics = self.admin("GET", "/metrics").send().await;
            metrics.text().lines().any(|found| found == line).then_some(())
        })
        .await;
    }

    /// The first access line that `wanted` likes.
    pub(crate) async fn access_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let pick = |line: &str| serde_json::from_str(line).ok().filter(|line| wanted(line));
        self.output.find("an access line as wanted", pick).await
    }

    /// Everything it wrote so far.
    pub(crate) fn output(&self) -> String {
        self.output.snapshot().join("\n")
    }

    /// Asks it to stop, in order (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    /// Stops it in order and starts it again over the same data directory, on other ports.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop().await;
        self.start_again().await
    }

    /// Writes `toml` in the place of its configuration, of which the process does not know yet.
    pub(crate) fn configure(&self, toml: &str) {
        std::fs::write(config_path(self.directory.path()), toml).expect("a writable temporary directory");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.pid())]).status();
        assert!(kill.expect("a shell").success(), "the gateway had ended before");
    }

    /// As [`Gateway::restart`], with `toml` in the place of its configuration.
    pub(crate) async fn restart_with(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.builder.config);
        self.restart().await
    }

    /// As [`Gateway::restart`]; what lies at `path` in its data directory is lost meanwhile.
    pub(crate) async fn restart_without(mut self, path: &str) -> Self {
        self.stop().await;
        std::fs::remove_dir_all(self.directory.path().join("data").join(path)).expect("a directory");
        self.start_again().await
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let process = &mut self.process.0;
        eventually("the gateway to end", || std::future::ready(process.try_wait().expect("a child process"))).await
    }

    /// Starts a second one over the same data directory, which must refuse.
    pub(crate) async fn refused_twin(&self) -> Refusal {
        self.builder.refuse_in(&self.directory).await
    }

    /// Ends it at once (SIGKILL).
    pub(crate) async fn kill9(&mut self) {
        self.process.0.kill().expect("the gateway still runs");
        self.ended().await;
    }

    /// Starts it again, after it has ended, over the same data directory, on other ports.
    pub(crate) async fn start_again(self) -> Self {
        self.builder.clone().run_in(Arc::clone(&self.directory)).await
    }

    /// Ends it at once (SIGKILL) and starts it again over the same data directory, on other ports.
    pub(crate) async fn kill9_and_restart(mut self) -> Self {
        self.kill9().await;
        self.start_again().await
    }

    /// What a sample of its metrics says; 0 where there is none of that name and those labels.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let metrics = self.admin("GET", "/metrics").send().await;
        let found = metrics.text().lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the gateway wrote:\n{}", self.output());
        }
    }
}
