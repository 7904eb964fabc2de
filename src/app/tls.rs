//! The certificates that clients and operators are shown: read at the start, when the configuration is read again, and
//! when their files change. All of them or none: files that cannot be used leave in place what there is.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use super::Error;
use crate::{
    config::Config,
    tls::{self, Acceptor, Metrics, Served, Server},
};

/// How often the files are looked at. Those who renew certificates leave days for it.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);

/// What both listeners show.
pub(super) struct Certificates {
    server: Server,
    data: Arc<Acceptor>,
    admin: Arc<Acceptor>,
    metrics: Metrics,
    taken: Mutex<Asked>,
}

/// What is to be shown, and its files as they are before they are read.
struct Asked {
    data: tls::Config,
    admin: tls::Config,
    files: Vec<File>,
}

/// A file, by what changes with its content: time, length and number of what is there; `None`: nothing is.
#[derive(Debug, PartialEq, Eq)]
struct File(PathBuf, Option<(i64, i64, u64, u64)>);

/// What was read, and can be used.
pub(super) struct Read {
    asked: Asked,
    data: Served,
    admin: Served,
}

impl Certificates {
    /// As configured, with all files read.
    ///
    /// # Errors
    /// Where a file cannot be used.
    pub(super) fn new(config: &Config, registry: &mut Registry) -> Result<Arc<Self>, Error> {
        let metrics = Metrics::register(registry);
        let acceptor = |name| Arc::new(Acceptor::new(name, config.client.head_timeout, &metrics));
        let (data, admin) = (acceptor("data"), acceptor("admin"));
        let taken = Mutex::new(Asked::of(&tls::Config::default(), &tls::Config::default()));
        let certificates = Self { server: Server::default(), data, admin, metrics, taken };
        certificates.take(certificates.read(config)?);
        Ok(Arc::new(certificates))
    }

    /// What answers handshakes of clients.
    pub(super) fn data(&self) -> Arc<Acceptor> {
        Arc::clone(&self.data)
    }

    /// What answers handshakes of operators.
    pub(super) fn admin(&self) -> Arc<Acceptor> {
        Arc::clone(&self.admin)
    }

    /// Reads what `config` names, and changes nothing.
    ///
    /// # Errors
    /// Where a file cannot be used.
    pub(super) fn read(&self, config: &Config) -> Result<Read, tls::Error> {
        let asked = Asked::of(&config.listen.tls, &config.admin.tls);
        let (data, admin) = self.served(&asked)?;
        Ok(Read { asked, data, admin })
    }

    /// Shows what was read from now on.
    pub(super) fn take(&self, read: Read) {
        let mut taken = self.taken.lock();
        self.show(read.data, read.admin);
        *taken = read.asked;
    }

    fn served(&self, asked: &Asked) -> Result<(Served, Served), tls::Error> {
        Ok((self.server.read("listen.tls", &asked.data)?, self.server.read("admin.tls", &asked.admin)?))
    }

    fn show(&self, data: Served, admin: Served) {
        self.metrics.show(&[("data", &data), ("admin", &admin)]);
        self.data.replace(data.settings);
        self.admin.replace(admin.settings);
    }

    /// Looks at the files again and again.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOKED_AT_EVERY).await;
            let certificates = Arc::clone(&self);
            // A panic there is one look that was not taken.
            let _ = tokio::task::spawn_blocking(move || certificates.look()).await;
        }
    }

    fn look(&self) {
        let Some(asked) = self.changed() else { return };
        let served = self.served(&asked);
        let mut taken = self.taken.lock();
        if (&taken.data, &taken.admin) != (&asked.data, &asked.admin) {
            // Another configuration was taken over meanwhile, and its files with it.
            return;
        }
        match served {
            Ok((data, admin)) => {
                self.show(data, admin);
                tracing::info!("certificates reloaded");
            }
            Err(error) => tracing::error!(%error, "certificates not reloaded: those read before stay"),
        }
        // Also where they cannot be used: that is said once for each change.
        *taken = asked;
    }

    /// What is asked for, where the files are not as they were.
    fn changed(&self) -> Option<Asked> {
        let (data, admin) = {
            let taken = self.taken.lock();
            (taken.data.clone(), taken.admin.clone())
        };
        let now = Asked::of(&data, &admin);
        (now.files != self.taken.lock().files).then_some(now)
    }
}

impl Asked {
    fn of(data: &tls::Config, admin: &tls::Config) -> Self {
        let files = data.files().chain(admin.files()).map(File::at).collect();
        Self { data: data.clone(), admin: admin.clone(), files }
    }
}

impl File {
    fn at(path: PathBuf) -> Self {
        let found = fs::metadata(&path).ok();
        let seen = found.map(|found| (found.mtime(), found.mtime_nsec(), found.len(), found.ino()));
        Self(path, seen)
    }
}
