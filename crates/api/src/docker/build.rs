//! Building images: not here.

use axum::response::Response;
use serde_json::json;
use types::{Error, Result};

use super::{call, router::Call};

const ELSEWHERE: &str = "kraud does not build images: build them elsewhere (docker buildx with its own builder, buildah, kaniko), then docker load or docker pull them";

/// `POST /build`
pub(super) async fn build(_: Call) -> Result<Response> {
    Err(Error::not_implemented(ELSEWHERE))
}

/// `POST /session`
pub(super) async fn session(_: Call) -> Result<Response> {
    Err(Error::not_implemented(ELSEWHERE))
}

/// `POST /build/prune`: no builds, no cache, nothing to prune.
pub(super) async fn prune(_: Call) -> Result<Response> {
    call::json(&json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
}
