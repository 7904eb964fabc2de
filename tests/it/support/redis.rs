//! Real Redis for scenarios: one server, a cluster of six, or a master with a replica and three Sentinels. All of it ends
//! with the values that stand for it, also in a scenario that fails.

use std::{
    fs::File,
    future::ready,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::eventually;

/// Ports given out, below those that the system gives to clients; the cluster's own are 10000 above.
static NEXT_PORT: LazyLock<AtomicU16> = LazyLock::new(|| {
    let start = u16::try_from(std::process::id() % 11_000).expect("below 11000");
    AtomicU16::new(start)
});

/// A port that is free, and the one 10000 above as well, for as long as this lives.
///
/// Redis is not there yet to hold it, and other scenarios look for ports too, also in other processes: the same port of
/// UDP, which nobody else wants, is held as a sign that this one is taken.
struct Port {
    number: u16,
    _claim: UdpSocket,
}

impl Port {
    fn claim() -> Self {
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        loop {
            let number = 11_000 + NEXT_PORT.fetch_add(1, SeqCst) % 11_000;
            let Ok(claim) = UdpSocket::bind(("127.0.0.1", number)) else { continue };
            if free(number) && free(number + 10_000) {
                return Self { number, _claim: claim };
            }
        }
    }
}

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Builder {
    arguments: Vec<String>,
    config: Option<String>,
    acl: Option<String>,
    tls: Option<Arc<Certificates>>,
}

/// A server that forgets everything when it ends.
pub(crate) fn server() -> Builder {
    Builder::default()
}

impl Builder {
    /// An option and its values, as on the command line.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.extend(argument.split_whitespace().map(str::to_owned));
        self
    }

    /// Users, as in a file of them.
    pub(crate) fn aclfile(mut self, users: &str) -> Self {
        self.acl = Some(users.to_owned());
        self
    }

    /// TLS only, with a certificate of an authority of its own, which clients must have one of as well.
    pub(crate) fn tls(mut self) -> Self {
        self.tls = Some(Arc::new(Certificates::new()));
        self
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn run(self) -> Server {
        let server = Server {
            port: Port::claim(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            builder: self,
            process: Mutex::new(None),
        };
        server.start_again().await;
        server
    }
}

/// One process of Redis.
pub(crate) struct Server {
    port: Port,
    directory: TempDir,
    builder: Builder,
    process: Mutex<Option<Process>>,
}

/// Killed when dropped.
struct Process {
    child: Child,
    paused: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// `redis://127.0.0.1:port`, or `rediss://localhost:port`.
    pub(crate) fn url(&self) -> String {
        if self.builder.tls.is_some() {
            format!("rediss://localhost:{}", self.port())
        } else {
            format!("redis://127.0.0.1:{}", self.port())
        }
    }

    /// The same with a user and password.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        self.url().replace("://", &format!("://{user}:{password}@"))
    }

    /// What is needed to reach it over TLS.
    pub(crate) fn certificates(&self) -> &Certificates {
        self.builder.tls.as_ref().expect("it was started with TLS")
    }

    /// Ends it at once.
    pub(crate) fn kill9(&self) {
        drop(self.process.lock().expect("nobody panicked").take().expect("it runs"));
    }

    /// Stops it where it is: its connections stay, nobody answers (SIGSTOP).
    pub(crate) fn pause(&self) {
        self.signal("STOP", true);
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal("CONT", false);
    }

    fn signal(&self, signal: &str, paused: bool) {
        let mut process = self.process.lock().expect("nobody panicked");
        let process = process.as_mut().expect("it runs");
        let kill = format!("kill -{signal} {}", process.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success(), "{kill}");
        process.paused = paused;
    }

    /// Whether it runs and is not paused.
    pub(crate) fn is_running(&self) -> bool {
        self.process.lock().expect("nobody panicked").as_ref().is_some_and(|process| !process.paused)
    }

    /// Starts it, on its port and in its directory, and waits until it answers.
    pub(crate) async fn start_again(&self) {
        let child = self.spawn();
        let process_id = format!("process_id:{}", child.id());
        *self.process.lock().expect("nobody panicked") = Some(Process { child, paused: false });
        // This one, and not another that happens to listen there.
        eventually("an answer of Redis", async || {
            let answer = self.cli(&["info", "server"]);
            // Without a default user, it does not say more.
            let is_own = answer.lines().any(|line| line == process_id) || answer.contains("NOAUTH");
            is_own.then_some(())
        })
        .await;
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a temporary directory");
        let mut command = Command::new("redis-server");
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let port = self.port().to_string();
        if let Some(config) = &self.builder.config {
            // Redis rewrites it: what it has learnt stays when it is started again.
            let path = self.directory.path().join("redis.conf");
            if !path.exists() {
                std::fs::write(&path, config).expect("a temporary directory");
            }
            command.arg(path);
        }
        if let Some(tls) = &self.builder.tls {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "yes"]);
            command.arg("--tls-ca-cert-file").arg(tls.authority()).arg("--tls-cert-file").arg(tls.certificate());
            command.arg("--tls-key-file").arg(tls.key());
        } else {
            command.args(["--port", &port]);
        }
        if let Some(acl) = &self.builder.acl {
            let path = self.directory.path().join("users.acl");
            std::fs::write(&path, acl).expect("a temporary directory");
            command.arg("--aclfile").arg(path);
        }
        if !self.builder.arguments.iter().any(|argument| argument == "--sentinel") {
            command.args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        }
        command.args(["--daemonize", "no", "--bind", "127.0.0.1"]).args(&self.builder.arguments);
        command.spawn().expect("redis-server is installed: make tools")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("redis.log")
    }

    /// What `redis-cli` prints for this command.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        if let Some(tls) = &self.builder.tls {
            command.args(["-h", "localhost", "--tls", "--cacert"]).arg(tls.authority());
            command.arg("--cert").arg(tls.certificate()).arg("--key").arg(tls.key());
        }
        if let Some(at) = self.builder.arguments.iter().position(|argument| argument == "--requirepass") {
            command.args(["--no-auth-warning", "-a", &self.builder.arguments[at + 1]]);
        }
        let output = command.args(["-p", &self.port().to_string()]).args(arguments).output();
        let output = output.expect("redis-cli is installed: make tools");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("the Redis of port {} wrote at last:", self.port());
            last.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// An authority, and a certificate of it for `localhost` and 127.0.0.1 that serves both sides.
#[derive(Debug)]
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let signed = authority.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(authority, key);
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut leaf = CertificateParams::new(names).expect("names");
        // Under the authority's own name it would pass for one that signed itself.
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
        let certificates = Self { directory };
        for (path, pem) in [
            (certificates.authority(), signed.pem()),
            (certificates.certificate(), certificate.pem()),
            (certificates.key(), key.serialize_pem()),
        ] {
            std::fs::write(path, pem).expect("a temporary directory");
        }
        certificates
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }
}

/// How a cluster is started.
#[derive(Debug, Clone)]
pub(crate) struct ClusterBuilder {
    server: Builder,
}

/// Three masters, each with a replica. A master that is gone is replaced after about two seconds; the others' slots can
/// be used meanwhile.
pub(crate) fn cluster() -> ClusterBuilder {
    let server = server().argument("--cluster-enabled yes --cluster-node-timeout 1000");
    let server = server.argument("--cluster-require-full-coverage no --cluster-allow-replica-migration no");
    ClusterBuilder { server: server.argument("--cluster-replica-validity-factor 0") }
}

impl ClusterBuilder {
    /// An option of all nodes and its values, as on the command line.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.server = self.server.argument(argument);
        self
    }

    /// Starts it and waits until all nodes know each other and all replicas are up to date.
    pub(crate) async fn run(self) -> Cluster {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(self.server.clone().run().await);
        }
        // Nodes that meet forget each other where they hear nothing for so long, and nobody has them meet again.
        let timeout =
            nodes[0].cli(&["config", "get", "cluster-node-timeout"]).lines().last().unwrap_or_default().to_owned();
        let set_timeout = |timeout: &str| {
            for node in &nodes {
                assert_eq!(node.cli(&["config", "set", "cluster-node-timeout", timeout]), "OK");
            }
        };
        set_timeout("30000");
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]).args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())));
        command.args(["--cluster-replicas", "1", "--cluster-yes"]).stdout(Stdio::null());
        let child = command.spawn().expect("redis-cli is installed: make tools");
        // It waits for ever for nodes that do not find each other.
        let mut creating = Process { child, paused: false };
        let created = eventually("a cluster", || ready(creating.child.try_wait().expect("a child process"))).await;
        assert!(created.success(), "{created:?}");
        set_timeout(&timeout);
        let cluster = Cluster { nodes };
        cluster.wait_ok().await;
        cluster
    }
}

/// Six nodes; the first three are masters at the start.
pub(crate) struct Cluster {
    nodes: Vec<Server>,
}

/// What a node says of another, or of itself.
struct Member {
    id: String,
    index: usize,
    /// Whose replica it is.
    replica_of: Option<String>,
    failed: bool,
    slots: Vec<(u16, u16)>,
}

impl Cluster {
    /// Of all nodes.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    pub(crate) fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// Which node has the key's slot, as one that runs has it.
    #[track_caller]
    pub(crate) fn master_of(&self, key: &[u8]) -> usize {
        let slot = larder::kv::slot(key);
        let members = self.members();
        let has = |member: &&Member| member.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        members.iter().filter(|member| !member.failed).find(has).expect("somebody has it").index
    }

    /// The replica of the node.
    #[track_caller]
    pub(crate) fn replica_of(&self, node: usize) -> usize {
        let members = self.members();
        let master = &members.iter().find(|member| member.index == node).expect("one of the cluster").id;
        let replica = members.iter().find(|member| member.replica_of.as_ref() == Some(master));
        replica.expect("it has a replica").index
    }

    /// The name the node has among the others.
    pub(crate) fn id(&self, node: usize) -> String {
        self.nodes[node].cli(&["cluster", "myid"])
    }

    /// A key that is in a slot of that node; keys of different numbers differ.
    pub(crate) fn key_of(&self, node: usize, number: usize) -> String {
        let members = self.members();
        let slots = &members.iter().find(|member| member.index == node).expect("one of the cluster").slots;
        let of_node = |key: &String| {
            let slot = larder::kv::slot(key.as_bytes());
            slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        (0..).map(|at| format!("key:{number}:{at}")).find(of_node).expect("a master")
    }

    fn members(&self) -> Vec<Member> {
        self.members_as_seen_by(self.nodes.iter().find(|node| node.is_running()).expect("one that runs"))
    }

    fn members_as_seen_by(&self, asked: &Server) -> Vec<Member> {
        asked.cli(&["cluster", "nodes"]).lines().filter_map(|line| self.member(line)).collect()
    }

    /// `id host:port@bus,… flags master-id … … epoch link slots…`
    fn member(&self, line: &str) -> Option<Member> {
        let words: Vec<&str> = line.split(' ').collect();
        let (&[id, address, flags, master], slots) = (words.get(..4)?.as_array()?, words.get(8..)?);
        let port: u16 = address.split_once(':')?.1.split_once('@')?.0.parse().ok()?;
        let range = |slots: &&str| {
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Some(Member {
            id: id.to_owned(),
            index: self.nodes.iter().position(|node| node.port() == port)?,
            replica_of: flags.contains("slave").then(|| master.to_owned()),
            failed: flags.split(',').any(|flag| flag == "fail"),
            slots: slots.iter().filter_map(range).collect(),
        })
    }

    /// Returns when every node that runs says that all is well, knows who replicates whom, and replicates or is replicated
    /// as far as it can be.
    pub(crate) async fn wait_ok(&self) {
        eventually("a cluster in order", async || {
            let running: Vec<&Server> = self.nodes.iter().filter(|node| node.is_running()).collect();
            let well = running.iter().all(|node| {
                let info = node.cli(&["cluster", "info"]);
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
            });
            let linked = running.iter().all(|node| {
                let info = node.cli(&["info", "replication"]);
                !info.contains("role:slave") || info.contains("master_link_status:up")
            });
            let online = |node: &&Server| node.cli(&["info", "replication"]).matches("state=online").count();
            let replicas: usize = running.iter().map(online).sum();
            let known = running.iter().all(|node| {
                let members = self.members_as_seen_by(node);
                members.iter().filter(|member| !member.failed && member.replica_of.is_some()).count() == replicas
            });
            (well && linked && known && replicas + 3 == running.len()).then_some(())
        })
        .await;
    }
}

/// A master, a replica, and three Sentinels that watch them.
pub(crate) struct Sentinels {
    servers: [Server; 2],
    sentinels: Vec<Server>,
}

/// Starts them and waits until they know each other. A master that is gone is replaced after about two seconds.
pub(crate) async fn sentinel() -> Sentinels {
    let master = server().run().await;
    let replica = server().argument(&format!("--replicaof 127.0.0.1 {}", master.port())).run().await;
    let watched = format!(
        "sentinel monitor larder 127.0.0.1 {} 2\nsentinel down-after-milliseconds larder 1000\n\
         sentinel failover-timeout larder 5000\n",
        master.port()
    );
    eventually("a replica", async || master.cli(&["info", "replication"]).contains("state=online").then_some(())).await;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        let sentinel = Builder { config: Some(watched.clone()), ..server().argument("--sentinel") };
        sentinels.push(sentinel.run().await);
    }
    let all = Sentinels { servers: [master, replica], sentinels };
    all.wait_ok().await;
    all
}

impl Sentinels {
    /// Of all Sentinels.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis+sentinel://{}/larder", hosts.join(","))
    }

    /// The two that hold values; the first is the master at the start.
    pub(crate) fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    pub(crate) fn sentinel(&self, index: usize) -> &Server {
        &self.sentinels[index]
    }

    /// Which of the two is the master, as the Sentinels have it.
    pub(crate) fn master(&self) -> usize {
        let asked = self.sentinels.iter().find(|sentinel| sentinel.is_running()).expect("one that runs");
        let answer = asked.cli(&["sentinel", "get-master-addr-by-name", "larder"]);
        let port = answer.lines().last().unwrap_or_default();
        self.servers.iter().position(|server| server.port().to_string() == port).expect("one of the two")
    }

    /// Returns when the Sentinels know each other and a replica in order.
    pub(crate) async fn wait_ok(&self) {
        eventually("Sentinels in order", async || {
            let well = self.sentinels.iter().filter(|sentinel| sentinel.is_running()).all(|sentinel| {
                let answer = sentinel.cli(&["sentinel", "ckquorum", "larder"]);
                let replicas = sentinel.cli(&["sentinel", "replicas", "larder"]);
                answer.starts_with("OK 3 usable") && replicas.contains("\nslave\n")
            });
            well.then_some(())
        })
        .await;
    }
}
