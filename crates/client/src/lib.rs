//! A typed client of kraud's native API: one method for each call.
//!
//! A client can be kept, cloned and shared freely: clones share connections, which are kept for
//! the next calls. It knows no environment, prints nothing, and never tries again by itself.

mod call;
mod docker;
mod error;
mod host;
mod identity;
mod pools;
mod push;
mod snapshots;
#[cfg(test)]
mod tests;
mod tls;
mod volumes;

pub use self::{
    docker::{Engine, LocalImage, RootFs},
    error::{Error, Result},
    host::Host,
    tls::Trust,
    volumes::Archive,
};

/// Speaks to one kraud.
#[derive(Clone)]
pub struct Client {
    host: Host,
    /// What is shown over the network.
    token: Option<String>,
    tls: Option<std::sync::Arc<tokio_rustls::rustls::ClientConfig>>,
    idle: call::Idle,
}

impl std::fmt::Debug for Client {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the kraud at `host`. Nothing is opened yet.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            token: None,
            tls: None,
            idle: call::Idle::default(),
        }
    }

    /// A client that shows a token, and knows the server by `trust`.
    ///
    /// # Errors
    /// When what it shall trust cannot be read.
    pub fn remote(host: Host, token: Option<String>, trust: &Trust) -> types::Result<Self> {
        let tls = match host {
            Host::Unix(_) => None,
            Host::Https { .. } => Some(tls::config(trust)?),
        };
        Ok(Self {
            host,
            token,
            tls,
            idle: call::Idle::default(),
        })
    }

    /// Where it speaks to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Who answers.
    pub async fn version(&self) -> Result<types::native::Version> {
        self.get(&["version"], &[]).await
    }

    /// Stops all containers of all namespaces.
    pub async fn stop(&self) -> Result<u64> {
        let stopped: types::native::Stopped = self.post(&["stop"], &serde_json::json!({})).await?;
        Ok(stopped.stopped)
    }

    /// The description of the API, an OpenAPI 3.1 document.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.get(&["openapi.json"], &[]).await
    }
}
