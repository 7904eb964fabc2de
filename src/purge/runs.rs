//! Which purge log this is, so that a stamp can be taken for one of it after it has been elsewhere.
//!
//! A position alone does not say so: another gateway counts from the same number, and so does this one after its data
//! directory has been put back to what it was last week. So each start of the log is a *run* with a random name, and the
//! log remembers its runs with the positions they began at. What is known of a run's history is what lies before the next
//! one began: what came after was purged in a life that this directory has not had.

use std::{fmt, io, path::Path, str::FromStr};

use crate::{files, object::scope::Position};

/// Runs that are remembered: more than a year of a restart each day. Of an older one nothing is known.
const RUNS_MAX: usize = 500;

/// The name of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run(u128);

/// The runs of a log, the last one being this one.
#[derive(Debug)]
pub(super) struct Runs(Vec<(Run, Position)>);

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run is 32 hexadecimal digits")]
pub struct InvalidRun;

impl FromStr for Run {
    type Err = InvalidRun;

    fn from_str(text: &str) -> Result<Self, InvalidRun> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self).ok_or(InvalidRun)
    }
}

impl Runs {
    /// Begins a run at `position`, and writes that to the file at `path`. `is_new`: the log has no history.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(super) fn begin(path: &Path, position: Position, is_new: bool, fsync: bool) -> io::Result<Self> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let known = if is_new { None } else { files::read(path)? };
        // What a log has lost of its end, a run lost with it. A file that cannot be read is one of which nothing is known.
        let mut runs = known.and_then(|text| parsed(&text)).unwrap_or_default();
        runs.retain(|(_, begun)| *begun <= position);
        runs.push((Run(u128::from_be_bytes(name)), position));
        runs.drain(..runs.len().saturating_sub(RUNS_MAX));
        let lines: String = runs.iter().map(|(run, begun)| format!("{run} {}\n", begun.number())).collect();
        files::replace(path, lines.as_bytes(), fsync)?;
        Ok(Self(runs))
    }

    /// This one.
    pub(super) fn current(&self) -> Option<Run> {
        self.0.last().map(|(run, _)| *run)
    }

    /// Up to which position the history of `run` is that of this log, which is at `position`; `None`: it is not.
    pub(super) fn reach(&self, run: Run, position: Position) -> Option<Position> {
        let at = self.0.iter().position(|(known, _)| *known == run)?;
        Some(self.0.get(at + 1).map_or(position, |(_, next)| *next))
    }
}

fn parsed(text: &[u8]) -> Option<Vec<(Run, Position)>> {
    let line = |line: &str| {
        let (run, begun) = line.split_once(' ')?;
        Some((run.parse().ok()?, Position::from_number(begun.parse().ok()?)))
    };
    std::str::from_utf8(text).ok()?.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position::from_number(number)
    }

    fn begin(directory: &Path, position: u64, is_new: bool) -> Runs {
        Runs::begin(&directory.join("runs"), at(position), is_new, false).expect("written")
    }

    #[test]
    fn a_run_reaches_to_where_the_next_began() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = begin(directory.path(), 0, true).current().expect("a run");
        let second = begin(directory.path(), 5, false);
        let this = second.current().expect("a run");
        assert_ne!(first, this);
        assert_eq!(second.reach(first, at(9)), Some(at(5)));
        assert_eq!(second.reach(this, at(9)), Some(at(9)));
        assert_eq!(first.to_string().parse(), Ok(first));
    }

    #[test]
    fn a_directory_that_was_put_back_does_not_know_what_came_after() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = begin(directory.path(), 0, true).current().expect("a run");
        let backup = std::fs::read(directory.path().join("runs")).expect("a file");
        let lost = begin(directory.path(), 8, false).current().expect("a run");
        std::fs::write(directory.path().join("runs"), backup).expect("written");
        let back = begin(directory.path(), 3, false);
        assert_eq!(back.reach(first, at(20)), Some(at(3)), "not what the first run had purged beyond the backup");
        assert_eq!(back.reach(lost, at(20)), None);
    }

    #[test]
    fn a_log_that_begins_anew_or_lost_its_end_forgets() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = begin(directory.path(), 0, true).current().expect("a run");
        let second = begin(directory.path(), 6, false).current().expect("a run");
        let shorter = begin(directory.path(), 4, false);
        assert_eq!((shorter.reach(first, at(4)), shorter.reach(second, at(4))), (Some(at(4)), None));
        assert_eq!(begin(directory.path(), 0, true).reach(first, at(9)), None);
        std::fs::write(directory.path().join("runs"), "nonsense").expect("written");
        assert_eq!(begin(directory.path(), 9, false).reach(first, at(9)), None);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = begin(directory.path(), 0, true).current().expect("a run");
        (1..RUNS_MAX).for_each(|_| drop(begin(directory.path(), 0, false)));
        let last = begin(directory.path(), 0, false);
        assert_eq!((last.0.len(), last.reach(first, at(0))), (RUNS_MAX, None));
    }
}
