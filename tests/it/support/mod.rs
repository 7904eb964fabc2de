//! Actors for scenarios: an origin, a gateway process, clients. Nothing here waits without a deadline.

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod gate;
pub(crate) mod gateway;
pub(crate) mod jwt;
pub(crate) mod kv;
pub(crate) mod origin;
pub(crate) mod pki;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod reply;
pub(crate) mod secure;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The longest any step of a scenario may take, on a machine that is busy with other scenarios.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `future`, or a panic that says what did not happen.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Asks `probe` again and again until it gives a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    within(what, async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Returns when a response received at `received` has certainly lived for `lifetime`: a date has whole seconds, so
/// the gateway may count up to one second less than the wall clock does.
pub(crate) async fn outlive(received: Instant, lifetime: Duration) {
    sleep_until(received + lifetime + Duration::from_millis(1050)).await;
}

/// `length` bytes in which every position can be told from its neighbours.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + u8::try_from((at * 7 + at / 251) % 26).expect("below 26")).collect()
}
