//! Programs that people use, told of the gateway as `larder ca install-hint --shell` says: what they ask hosts of the list
//! is cached, and the rest of what they do goes on undisturbed. What a machine does not have is passed over with a word.

use std::{ffi::OsStr, path::Path, process::Command};

use crate::support::{
    command::Ran,
    gateway,
    gateway::Gateway,
    origin,
    origin::{Origin, reply},
    raw,
    secure::Front,
    within,
};

use super::intercept::{list, reaching};

const PYTHON_URLLIB: &str = "
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())
";

const PYTHON_REQUESTS: &str = "
import sys, requests
sys.stdout.write(requests.get(sys.argv[1]).text)
";

const PYTHON_HTTPX: &str = "
import sys, httpx
sys.stdout.write(httpx.get(sys.argv[1]).text)
";

/// `fetch` takes a proxy from the environment since Node 22.21 alone; before that, the way is gone by hand.
const NODE: &str = "
const [http, https, tls] = ['http', 'https', 'tls'].map(name => require(name));
const proxy = new URL(process.env.HTTPS_PROXY), target = new URL(process.argv[1]);
const fail = error => { console.error(error); process.exit(1); };
if (process.allowedNodeEnvironmentFlags.has('--use-env-proxy')) {
  fetch(target).then(answer => answer.text()).then(text => process.stdout.write(text)).catch(fail);
} else {
  const connect = http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: target.host });
  connect.on('error', fail).on('connect', (answer, socket) => {
    const agent = new https.Agent();
    agent.createConnection = () => tls.connect({ socket, servername: target.hostname });
    https.get(target, { agent }, answer => answer.pipe(process.stdout)).on('error', fail);
  }).end();
}
";

/// The lines that tell a shell of the authority, with the gateway where it really is.
fn told(gateway: &Gateway, command: &str) -> String {
    format!(
        "eval \"$('{larder}' ca install-hint --shell --data-dir '{data}')\"\n\
         export HTTPS_PROXY=http://{proxy} https_proxy=http://{proxy}\nunset NO_PROXY no_proxy ALL_PROXY all_proxy\n\
         exec {command}",
        larder = env!("CARGO_BIN_EXE_larder"),
        data = gateway.data_dir().display(),
        proxy = gateway.data(),
    )
}

async fn shell<A: AsRef<OsStr>>(script: String, arguments: &[A]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", &script, "sh"]).args(arguments).stdin(std::process::Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LARDER_")) {
        command.env_remove(name);
    }
    let run = tokio::task::spawn_blocking(move || command.output().expect("a shell"));
    let output = within("a program to end", run).await.expect("no panic");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Whether it is there.
fn has(program: &str, probe: &[&str]) -> bool {
    let found = Command::new(program).args(probe).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("passed over: there is no {program} {}", probe.join(" "));
    }
    found
}

struct Scene {
    origin: Origin,
    front: Front,
    gateway: Gateway,
}

async fn scene() -> Scene {
    let answer = |_: &origin::Seen, nth: usize| reply(format!("answer {nth}")).max_age(60);
    let origin = origin::new().handler("/a", answer).run().await;
    let front = Front::before(origin.authority().parse().expect("an address")).await;
    let gateway = gateway::new().config(reaching(&front)).config(list(&front)).authority().run().await;
    Scene { origin, front, gateway }
}

/// Runs a program twice; it prints what it was answered, the first time by the origin.
async fn asks_once(name: &str, probe: &[&str], arguments: &[&str]) {
    if !has(name, probe) {
        return;
    }
    let Scene { origin, front, gateway } = scene().await;
    for _ in 0..2 {
        let url = front.url("/a");
        let arguments: Vec<_> = arguments.iter().copied().chain([url.as_str()]).collect();
        let ran = shell(told(&gateway, &format!("{name} \"$@\"")), &arguments).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "answer 0"), "{}", ran.stderr);
    }
    assert_eq!(origin.requests("/a"), 1);
    assert_eq!(gateway.metric("larder_intercept_connections_total{outcome=\"opened\"}").await, 2.0);
}

#[tokio::test]
async fn curl() {
    asks_once("curl", &["--version"], &["-sS", "--fail"]).await;
    asks_once("curl", &["--version"], &["-sS", "--fail", "--http1.1"]).await;
}

#[tokio::test]
async fn python() {
    asks_once("python3", &["-c", "import ssl"], &["-c", PYTHON_URLLIB]).await;
    asks_once("python3", &["-c", "import requests"], &["-c", PYTHON_REQUESTS]).await;
    asks_once("python3", &["-c", "import httpx"], &["-c", PYTHON_HTTPX]).await;
}

#[tokio::test]
async fn node() {
    asks_once("node", &["--version"], &["-e", NODE]).await;
}

/// A server of the files of `directory`.
async fn files(directory: &Path) -> raw::Origin {
    let directory = directory.to_owned();
    raw::serve(move |mut conn| {
        let directory = directory.clone();
        async move {
            while let Some(head) = conn.try_head().await {
                let path = head.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
                let (status, content) = match std::fs::read(directory.join(path.trim_start_matches('/'))) {
                    Ok(content) => ("200 OK", content),
                    Err(_) => ("404 Not Found", Vec::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", content.len());
                conn.write([head.as_bytes(), &content].concat()).await;
            }
        }
    })
    .await
}

/// git trusts the host's own certificate, and nobody else's is shown to it.
#[tokio::test]
async fn git_is_undisturbed() {
    if !has("git", &["--version"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let make = "git init -q work && cd work && echo hello >file && git add file \
                && git -c user.name=a -c user.email=a@example commit -qm first && cd .. \
                && git clone -q --bare work repo.git && git -C repo.git update-server-info";
    let made = Command::new("sh").args(["-eu", "-c", make]).current_dir(directory.path()).output().expect("a shell");
    assert!(made.status.success(), "{made:?}");
    let origin = files(directory.path()).await;
    let front = Front::before(origin.address()).await;
    let listed = Front::before(origin.address()).await;
    let config = reaching(&listed).replace("connect_ports = [", &format!("connect_ports = [{}, ", front.port()));
    let gateway = gateway::new().config(config).config(list(&listed)).authority().run().await;

    let target = directory.path().join("clone");
    let command = format!(
        "env GIT_SSL_CAINFO='{}' GIT_CONFIG_GLOBAL=/dev/null git clone -q '{}' '{}'",
        front.authority_file().display(),
        front.url("/repo.git"),
        target.display()
    );
    let ran = shell(told(&gateway, &command), &[] as &[&str]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(target.join("file")).expect("cloned"), "hello\n");
    assert!(front.connections() > 0);
    assert_eq!(gateway.metric("larder_intercept_connections_total{outcome=\"opened\"}").await, 0.0);
}
