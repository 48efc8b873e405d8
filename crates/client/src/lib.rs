//! A typed client of kraud's native API: one method for each call.
//!
//! It opens a connection for each call, so that a client can be kept, cloned and shared
//! freely. It knows no environment, prints nothing, and never tries again by itself.

mod call;
mod error;
mod host;
mod identity;
mod pools;
mod snapshots;
#[cfg(test)]
mod tests;
mod volumes;

pub use self::{
    error::{Error, Result},
    host::Host,
    volumes::Archive,
};

/// Speaks to one kraud.
#[derive(Debug, Clone)]
pub struct Client {
    host: Host,
}

impl Client {
    /// A client of the kraud at `host`. Nothing is opened yet.
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// Where it speaks to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Who answers.
    pub async fn version(&self) -> Result<types::native::Version> {
        self.get(&["version"], &[]).await
    }

    /// The description of the API, an OpenAPI 3.1 document.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.get(&["openapi.json"], &[]).await
    }
}
