//! Pushes: `/push`.

use axum::{body::Body, response::Response};
use types::{Digest, Error, Result, native};

use super::table::Call;
use crate::docker::{
    call::{json, stream},
    upload::Upload,
};

/// Hashes of one question, bytes.
const QUESTION: usize = 4 << 20;

/// `POST /push`
pub(super) async fn begin(mut call: Call) -> Result<Response> {
    let wanted: native::PushBegin = call.json().await?;
    json(&call.state.push_begin(&call.scope(), &wanted).await?)
}

/// `POST /push/prefixes`
pub(super) async fn prefixes(mut call: Call) -> Result<Response> {
    let wanted: native::PushBases = call.json().await?;
    let prefixes = call
        .state
        .push_prefixes(&call.scope(), &wanted.bases)
        .await?;
    stream("application/octet-stream", Body::from(prefixes))
}

/// `POST /push/missing`
pub(super) async fn missing(mut call: Call) -> Result<Response> {
    let hashes = axum::body::to_bytes(call.take_body(), QUESTION)
        .await
        .map_err(|error| Error::invalid(format!("invalid request: {error}")))?;
    let missing = call.state.push_missing(&call.scope(), &hashes).await?;
    stream("application/octet-stream", Body::from(missing))
}

/// `POST /push/chunks`
pub(super) async fn chunks(mut call: Call) -> Result<Response> {
    let upload = Upload::new(call.take_body());
    let session = call.needed("session")?;
    let done = call
        .state
        .push_receive(&call.scope(), session, upload.reader())
        .await;
    if done.is_err() {
        upload.drain().await;
    }
    json(&done?)
}

/// `POST /push/layers/{layer}`
pub(super) async fn layer(mut call: Call) -> Result<Response> {
    let upload = Upload::new(call.take_body());
    let layer: Digest = call.name(0).parse()?;
    let session = call.needed("session")?.to_owned();
    let bases = call
        .query
        .nonempty("bases")
        .map(|text| {
            text.split(',')
                .map(str::parse)
                .collect::<Result<Vec<Digest>>>()
        })
        .transpose()?
        .unwrap_or_default();
    let done = call
        .state
        .push_layer(&call.scope(), &session, &layer, bases, upload.reader())
        .await;
    if done.is_err() {
        upload.drain().await;
    }
    json(&done?)
}

/// `POST /push/images`
pub(super) async fn commit(mut call: Call) -> Result<Response> {
    let wanted: native::PushCommit = call.json().await?;
    json(&call.state.push_commit(&call.scope(), wanted).await?)
}
