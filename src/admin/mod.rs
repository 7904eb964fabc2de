//! stub
pub mod config;
/// stub
pub struct Admin;
#[expect(missing_docs, unused_variables, reason = "stub")]
impl Admin {
    pub fn new(
        config: &crate::config::Config,
        proxy: crate::proxy::Proxy,
        registry: std::sync::Arc<parking_lot::Mutex<prometheus_client::registry::Registry>>,
        stop: tokio_util::sync::CancellationToken,
    ) -> Self {
        Self
    }
    pub async fn serve(self, listener: tokio::net::TcpListener, stop: tokio_util::sync::CancellationToken) {
        stop.cancelled().await
    }
}
