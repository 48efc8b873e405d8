//! `/version` and `/openapi.json`.

use std::sync::LazyLock;

use axum::response::Response;
use serde_json::Value;
use types::{
    Result,
    native::{StopAll, Stopped, Version},
};

use super::{document, table, table::Call};
use crate::docker::call;

/// `GET /version`
pub(super) async fn version(_: Call) -> Result<Response> {
    call::json(&Version {
        version: env!("CARGO_PKG_VERSION").into(),
        api: "1".into(),
    })
}

/// `POST /stop`
pub(super) async fn stop(mut call: Call) -> Result<Response> {
    let _: StopAll = call.json().await?;
    let stopped = call.state.stop_all().await?;
    call::json(&Stopped { stopped })
}

/// `GET /openapi.json`
pub(super) async fn openapi(_: Call) -> Result<Response> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(table()));
    call::json(&*DOCUMENT)
}
