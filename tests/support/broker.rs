//! A nats-server of the test's own, supervised as the gateway does it, that leaves nothing behind.
#![allow(dead_code)] // each test uses a part

use std::path::PathBuf;
use std::time::Duration;

use async_nats::Client;
use causeway::bus::supervise::Supervised;
use causeway::config;

/// Longer than anything here takes; what exceeds it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server on a free port with a store of its own.
pub(crate) struct Broker {
    server: Option<Supervised>,
    store: PathBuf,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let store = std::env::temp_dir().join(format!("causeway-test-{}", ulid::Ulid::new()));
        let nats = config::Nats {
            store: store.clone(),
            server: "nats-server".into(),
            ..config::Nats::default()
        };
        let server = Supervised::start(&nats).await.expect("nats-server");
        Self {
            server: Some(server),
            store,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.server.as_ref().expect("running").url()
    }

    pub(crate) async fn client(&self) -> Client {
        async_nats::connect(self.url()).await.expect("connect")
    }

    /// Sends a signal such as `-STOP` to the server.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.server.as_ref().and_then(Supervised::pid).expect("pid");
        let sent = std::process::Command::new("kill")
            .args([name, &pid.to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    pub(crate) async fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.store);
    }
}

/// Waits for what must come; panics with its name when it does not.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came: {what}");
}
