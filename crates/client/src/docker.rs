//! A container engine of this machine that speaks docker's API: where images come from.

use std::{io, path::PathBuf};

use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use types::Digest;

use crate::{Client, Error, Host, Result, call};

/// An engine. Podman is one, too.
#[derive(Debug, Clone)]
pub struct Engine(Client);

/// An image that an engine has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LocalImage {
    /// Of its configuration; with containerd's image store that of its manifest.
    pub id: Digest,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// Bytes of its layers.
    #[serde(default)]
    pub size: u64,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFs {
    /// SHA-256 of the layers' uncompressed tars, the lowest first.
    #[serde(default)]
    pub layers: Vec<Digest>,
}

impl Engine {
    /// The engine behind a socket.
    pub fn new(socket: PathBuf) -> Self {
        Self(Client::new(Host::Unix(socket)))
    }

    /// Where it is.
    pub fn host(&self) -> &Host {
        self.0.host()
    }

    /// An image by its name; `None` when the engine has none.
    pub async fn image(&self, name: &str) -> Result<Option<LocalImage>> {
        let target = format!("/images/{}/json", call::encoded(name));
        let response = self.get(&target).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = self.success(&target, response).await?;
        let body = Limited::new(response.into_body(), 16 << 20)
            .collect()
            .await
            .map_err(|source| self.0.broken(&target, source))?
            .to_bytes();
        serde_json::from_slice(&body).map(Some).map_err(|error| {
            let what = format!("the answer is not as expected: {error}");
            self.0.unexpected(&target, what)
        })
    }

    /// The archive of images, as `docker save` writes it.
    pub async fn save(&self, names: &[String]) -> Result<impl AsyncRead + Send + use<>> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.extend_pairs(names.iter().map(|name| ("names", name)));
        let target = format!("/images/get?{}", query.finish());
        let response = self.get(&target).await?;
        let response = self.success(&target, response).await?;
        let body = response.into_body().into_data_stream();
        Ok(StreamReader::new(Box::pin(body.map_err(io::Error::other))))
    }

    async fn get(&self, target: &str) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(target)
            .header(header::HOST, "localhost")
            .body(call::nothing())
            .map_err(|error| self.0.unexpected(target, error.to_string()))?;
        self.0.exchange(target, request).await
    }

    async fn success(
        &self,
        target: &str,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>> {
        #[derive(serde::Deserialize)]
        struct Words {
            message: String,
        }
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), 1 << 20).collect().await;
        let body = body
            .map_err(|source| self.0.broken(target, source))?
            .to_bytes();
        let words = serde_json::from_slice::<Words>(&body)
            .map_or_else(|_| status.to_string(), |words| words.message);
        Err(match status {
            StatusCode::NOT_FOUND => Error::Api(types::Error::not_found(words)),
            _ => self.0.unexpected(target, words),
        })
    }
}
