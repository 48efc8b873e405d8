//! The little of the API that `kraud stop` needs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// A client that makes one connection per call.
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Ids of the running containers.
    pub(crate) async fn running(&self) -> anyhow::Result<Vec<String>> {
        let body = self.call("GET", "/containers/json").await?;
        let list: Vec<serde_json::Value> =
            serde_json::from_str(&body).context("reading the list of containers")?;
        Ok(list
            .iter()
            .filter_map(|one| one["Id"].as_str().map(str::to_owned))
            .collect())
    }

    /// Stops one container.
    pub(crate) async fn stop(&self, id: &str) -> anyhow::Result<()> {
        self.call("POST", &format!("/containers/{id}/stop"))
            .await
            .map(drop)
    }

    async fn call(&self, method: &str, path: &str) -> anyhow::Result<String> {
        let at = || format!("{method} {path} on {}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).await.with_context(at)?;
        // HTTP/1.0: the answer ends with the connection, in one piece.
        let request =
            format!("{method} {path} HTTP/1.0\r\nHost: kraud\r\nContent-Length: 0\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .with_context(at)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.with_context(at)?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(at)?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        // 304: was stopped already; 404: has been removed meanwhile.
        if !status.starts_with('2') && !matches!(status, "304" | "404") {
            bail!("{}: {status} {}", at(), body.trim());
        }
        Ok(body.to_owned())
    }
}
