//! `/push`.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Method;
use types::{
    Digest,
    native::{PushBases, PushBegin, PushCommit, PushPlan, PushReceived, PushedImage, PushedLayer},
};

use crate::{
    Client, Result,
    call::{Answer, Body, stream},
};

const OCTETS: &str = "application/octet-stream";

fn whole(bytes: Bytes) -> Body {
    Full::from(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

impl Client {
    /// Begins to push images.
    pub async fn push_begin(&self, wanted: &PushBegin) -> Result<PushPlan> {
        self.post(&["push"], wanted).await
    }

    /// The starts of the hashes of the chunks of layers, six bytes each.
    pub async fn push_prefixes(&self, bases: &[Digest]) -> Result<Bytes> {
        let body = serde_json::to_vec(&PushBases {
            bases: bases.to_vec(),
        })
        .map_err(|error| self.unexpected("POST", format!("encoding the request: {error}")))?;
        let answer = self
            .send(
                Method::POST,
                &["push", "prefixes"],
                &[],
                Some(("application/json", whole(body.into()))),
            )
            .await?;
        self.octets(answer).await
    }

    /// Which chunks, by their hashes, have to be sent: a byte for each, 1 for missing.
    pub async fn push_missing(&self, hashes: Bytes) -> Result<Bytes> {
        let answer = self
            .send(
                Method::POST,
                &["push", "missing"],
                &[],
                Some((OCTETS, whole(hashes))),
            )
            .await?;
        self.octets(answer).await
    }

    /// Sends chunks: zstd of, for each, its length (four bytes, little-endian) and its bytes.
    pub async fn push_chunks(&self, session: &str, chunks: Bytes) -> Result<PushReceived> {
        let answer = self
            .send(
                Method::POST,
                &["push", "chunks"],
                &[("session", session)],
                Some((OCTETS, whole(chunks))),
            )
            .await?;
        self.read(answer).await
    }

    /// Has a layer put together from a recipe.
    pub async fn push_layer(
        &self,
        session: &str,
        layer: &Digest,
        bases: &[Digest],
        recipe: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<PushedLayer> {
        let names: Vec<&str> = bases.iter().map(Digest::as_str).collect();
        let names = names.join(",");
        let mut query = vec![("session", session)];
        if !bases.is_empty() {
            query.push(("bases", names.as_str()));
        }
        let answer = self
            .send(
                Method::POST,
                &["push", "layers", layer.as_str()],
                &query,
                Some((OCTETS, stream(recipe))),
            )
            .await?;
        self.read(answer).await
    }

    /// Records a pushed image.
    pub async fn push_commit(&self, wanted: &PushCommit) -> Result<PushedImage> {
        self.post(&["push", "images"], wanted).await
    }

    pub(crate) async fn octets(&self, answer: Answer) -> Result<Bytes> {
        /// Prefixes of sixteen large layers are less.
        const LIMIT: usize = 64 << 20;
        let Answer { call, response } = answer;
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        Ok(body
            .map_err(|source| self.broken(&call, source))?
            .to_bytes())
    }
}
