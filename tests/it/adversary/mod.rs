//! Origins and clients that do what they should not. The gateway answers in bounded time, stores nothing wrong, and
//! lives on.

mod clients;
mod origins;

use std::time::Duration;

use crate::support::gateway::Gateway;

/// What no single step may take with short deadlines, on a machine that is busy.
const SOON: Duration = Duration::from_secs(10);

async fn assert_alive(gateway: &Gateway) {
    assert_eq!(gateway.admin("GET", "/healthz").send().await.status, 200);
}
