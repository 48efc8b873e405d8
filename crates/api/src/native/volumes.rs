//! `/volumes`.

use axum::{http::StatusCode, response::Response};
use engine::request;
use types::{
    Result, SnapshotName,
    native::{ChangeList, RollbackRequest, VolumeClone, VolumeCreate, VolumeList, VolumeResize},
};

use super::table::Call;
use crate::docker::call;

/// `GET /volumes`
pub(super) async fn list(call: Call) -> Result<Response> {
    let volumes = call.state.volume_list_details(&call.scope()).await?;
    call::json(&VolumeList { volumes })
}

/// `POST /volumes`
pub(super) async fn create(mut call: Call) -> Result<Response> {
    let wanted: VolumeCreate = call.json().await?;
    let request = request::VolumeCreate {
        name: wanted.name.filter(|name| !name.is_empty()),
        driver: wanted.class.unwrap_or_default(),
        options: wanted.options,
        labels: wanted.labels,
    };
    let made = call.state.volume_create(&call.scope(), request).await?;
    let name = made.record.name.as_str();
    let volume = call.state.volume_details(&call.scope(), name).await?;
    call::json_with(StatusCode::CREATED, &volume)
}

/// `GET /volumes/{volume}`
pub(super) async fn inspect(call: Call) -> Result<Response> {
    let volume = call
        .state
        .volume_details(&call.scope(), call.name(0))
        .await?;
    call::json(&volume)
}

/// `DELETE /volumes/{volume}`
pub(super) async fn remove(call: Call) -> Result<Response> {
    let force = call.query.flag("force");
    call.state
        .volume_remove(&call.scope(), call.name(0), force)
        .await?;
    call::empty(StatusCode::NO_CONTENT)
}

/// `POST /volumes/{volume}/resize`
pub(super) async fn resize(mut call: Call) -> Result<Response> {
    let VolumeResize { size } = call.json().await?;
    let volume = call
        .state
        .volume_resize(&call.scope(), call.name(0), size)
        .await?;
    call::json(&volume)
}

/// `POST /volumes/{volume}/clone`
pub(super) async fn clone(mut call: Call) -> Result<Response> {
    let VolumeClone { name, snapshot } = call.json().await?;
    let snapshot = snapshot.as_ref().map(SnapshotName::as_str);
    let volume = call
        .state
        .volume_clone(&call.scope(), call.name(0), snapshot, &name)
        .await?;
    call::json_with(StatusCode::CREATED, &volume)
}

/// `POST /volumes/{volume}/rollback`
pub(super) async fn rollback(mut call: Call) -> Result<Response> {
    let RollbackRequest { snapshot, restart } = call.json().await?;
    let done = call
        .state
        .volume_rollback(&call.scope(), call.name(0), &snapshot, restart)
        .await?;
    call::json(&done)
}

/// `GET /volumes/{volume}/diff`
pub(super) async fn diff(call: Call) -> Result<Response> {
    let (from, to) = (call.needed("from")?, call.query.nonempty("to"));
    let changes = call
        .state
        .volume_diff(&call.scope(), call.name(0), from, to)
        .await?;
    call::json(&ChangeList { changes })
}
