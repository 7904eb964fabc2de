//! What the tests of growing bodies are made of.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{
    super::{failure::Failure, memory::Memory, spill::Spill},
    Growing, Reader,
};

pub(super) fn growing(memory_max: usize, spill_max: u64) -> (Arc<Growing>, tempfile::TempDir) {
    growing_in(&Memory::new(usize::MAX), memory_max, spill_max)
}

pub(super) fn growing_in(memory: &Memory, memory_max: usize, spill_max: u64) -> (Arc<Growing>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (Growing::new(memory_max, memory.clone(), Spill::new(directory.path(), spill_max)), directory)
}

pub(super) async fn frame(reader: &mut Reader) -> Option<Result<Bytes, Arc<Failure>>> {
    let frame = std::future::poll_fn(|cx| reader.poll_frame(cx)).await;
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
}

pub(super) async fn all(mut reader: Reader) -> Result<Vec<u8>, Arc<Failure>> {
    let mut read = Vec::new();
    while let Some(data) = frame(&mut reader).await {
        read.extend_from_slice(&data?);
    }
    Ok(read)
}

pub(super) fn chunks() -> impl Iterator<Item = Bytes> + Send + 'static {
    (0..64_u8).map(|number| Bytes::from(vec![number; 1000]))
}

/// All of [`chunks`].
pub(super) fn expected() -> Vec<u8> {
    chunks().flatten().collect()
}

/// A task that writes `chunks` and the end.
pub(super) fn write_out(
    growing: &Arc<Growing>,
    chunks: impl Iterator<Item = Bytes> + Send + 'static,
) -> JoinHandle<()> {
    let growing = Arc::clone(growing);
    tokio::spawn(async move {
        for chunk in chunks {
            growing.push(chunk).await.expect("somebody reads");
        }
        growing.complete(Bytes::new(), None, None);
    })
}
