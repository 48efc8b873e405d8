//! The native API, `/kr/v1`: what docker's has no words for.
//!
//! [`table`] names every call with its handler and its description; [`openapi`] makes the
//! OpenAPI document from it, so that a call without a description cannot be. Bodies are
//! `types::native`. Handlers keep to the rules of docker's: convert, call the engine, convert.

pub(crate) mod dispatch;
mod files;
mod identity;
mod openapi;
mod pools;
mod push;
mod snapshots;
mod system;
mod table;
mod volumes;

use axum::routing::any;
use engine::Engine;

pub use self::{openapi::document, table::table};

/// What all paths of the API begin with.
pub(crate) const PREFIX: &str = "/kr/v1";

/// `docker`, with the native API beside it.
pub(crate) fn beside(docker: axum::Router, engine: Engine) -> axum::Router {
    let answer = any(move |request| dispatch::answer(table(), engine.clone(), request));
    docker
        .route("/kr/v1", answer.clone())
        .route("/kr/v1/", answer.clone())
        .route("/kr/v1/{*path}", answer)
}
