//! Packs of recorded calls: one for each file, whichever routes name it.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use crate::{
    cache::{llm::Packed, route::Route},
    config::ResolvedRoute,
    llm::{config::Mode, question::Settings},
    pack::{Error, Pack, Recording},
};

/// Those that are open.
pub(super) struct Packs(HashMap<PathBuf, (Arc<Pack>, Vec<Recording>)>);

impl Packs {
    /// Those that routes name.
    pub(super) fn open<'r>(routes: impl Iterator<Item = &'r ResolvedRoute>) -> Result<Self, Error> {
        let mut wanted: HashMap<PathBuf, (bool, u64)> = HashMap::new();
        for llm in routes.filter(|route| route.route.protocol.model().is_some()).map(|route| &route.llm) {
            if llm.mode != Mode::Cache {
                let (writes, bytes_max) = wanted.entry(llm.pack.clone()).or_default();
                *writes |= llm.mode != Mode::Replay;
                *bytes_max = (*bytes_max).max(llm.pack_bytes_max.as_u64());
            }
        }
        let open = |(path, (writes, bytes_max)): (PathBuf, (bool, u64))| {
            let (pack, recordings) = Pack::open(&path, writes, bytes_max)?;
            tracing::info!(pack = ?path, calls = recordings.len(), "recorded calls");
            Ok((path, (Arc::new(pack), recordings)))
        };
        wanted.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// The part of a route.
    pub(super) fn of(&self, route: &Route, settings: &Settings) -> Option<Arc<Packed>> {
        let mode = settings.config.mode;
        let (pack, recordings) = self.0.get(&settings.config.pack).filter(|_| mode != Mode::Cache)?;
        let packed = Packed::new(route, settings, Arc::clone(pack), recordings);
        Some(Arc::new(packed))
    }
}
