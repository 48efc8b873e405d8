//! `/snapshots` and `/volumes/{volume}/snapshots`.

use axum::{http::StatusCode, response::Response};
use types::{
    Result,
    native::{SnapshotCreate, SnapshotList, SnapshotRename},
};

use super::table::Call;
use crate::docker::call;

/// `POST /snapshots`
pub(super) async fn create(mut call: Call) -> Result<Response> {
    let SnapshotCreate { volumes, name } = call.json().await?;
    let snapshots = call
        .state
        .snapshot_create(&call.scope(), &volumes, name.as_deref())
        .await?;
    call::json_with(StatusCode::CREATED, &SnapshotList { snapshots })
}

/// `GET /volumes/{volume}/snapshots`
pub(super) async fn list(call: Call) -> Result<Response> {
    let snapshots = call.state.snapshot_list(&call.scope(), call.name(0))?;
    call::json(&SnapshotList { snapshots })
}

/// `DELETE /volumes/{volume}/snapshots/{snapshot}`
pub(super) async fn remove(call: Call) -> Result<Response> {
    call.state
        .snapshot_remove(&call.scope(), call.name(0), call.name(1))
        .await?;
    call::empty(StatusCode::NO_CONTENT)
}

/// `POST /volumes/{volume}/snapshots/{snapshot}/rename`
pub(super) async fn rename(mut call: Call) -> Result<Response> {
    let SnapshotRename { name } = call.json().await?;
    let snapshot = call
        .state
        .snapshot_rename(&call.scope(), call.name(0), call.name(1), &name)
        .await?;
    call::json(&snapshot)
}
