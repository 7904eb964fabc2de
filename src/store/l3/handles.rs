//! Large entries that are held open, so that one asked for often needs neither the index nor another look for its file.
//!
//! They are few, because each is an open file; the least recently used makes room. What is changed on the disk is let go
//! at once: the room of a file that is removed while it is open would not come back.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{content::ContentId, large::Large, locator::Locator};

/// Most that are held open. Half of the open files a process may have where nobody allowed it more.
const MAX: usize = 512;

/// The table.
#[derive(Default)]
pub(super) struct Handles {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<Locator, Open>,
    /// Uses so far.
    uses: u64,
    /// Changes of the disk so far.
    changes: u64,
}

struct Open {
    large: Large,
    used: u64,
}

impl Handles {
    /// How often the disk was changed: to be read before the index is, and given to [`Handles::keep`].
    pub(super) fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// What is held open of `key`; counts as a use.
    pub(super) fn find(&self, key: &Locator) -> Option<Large> {
        let mut state = self.state.lock();
        state.uses += 1;
        let now = state.uses;
        let open = state.open.get_mut(key)?;
        open.used = now;
        Some(open.large.clone())
    }

    /// Holds open what was found, unless the disk was changed since it was looked for.
    pub(super) fn keep(&self, key: Locator, large: &Large, changes: u64) {
        let mut state = self.state.lock();
        if state.changes != changes {
            return;
        }
        if state.open.len() >= MAX && !state.open.contains_key(&key) {
            let oldest = state.open.iter().min_by_key(|(_, open)| open.used).map(|(key, _)| *key);
            oldest.and_then(|key| state.open.remove(&key));
        }
        state.uses += 1;
        let used = state.uses;
        state.open.insert(key, Open { large: large.clone(), used });
    }

    /// What lies under these keys is another by now.
    pub(super) fn changed<'a>(&self, keys: impl Iterator<Item = &'a Locator>) {
        let mut state = self.state.lock();
        state.changes += 1;
        keys.for_each(|key| drop(state.open.remove(key)));
    }

    /// That content is of no use any more.
    pub(super) fn condemn(&self, id: ContentId) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.open.retain(|_, open| open.large.id() != id);
    }

    /// Nothing is held open any more.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.open.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state.lock().open.len()
    }
}
