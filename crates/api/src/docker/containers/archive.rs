//! A container's files: cp, export, diff.

use axum::{
    http::{HeaderValue, StatusCode},
    response::Response,
};
use base64::Engine as _;
use types::{Error, Result};

use crate::docker::{call, router::Call, upload, wire::container::FilesystemChange};

const TAR: &str = "application/x-tar";

fn path(call: &Call) -> Result<&str> {
    call.query
        .nonempty("path")
        .ok_or_else(|| Error::invalid("bad parameter: path cannot be empty"))
}

fn with_stat(mut response: Response, stat: &agent::PathStat) -> Result<Response> {
    let text =
        serde_json::to_vec(stat).map_err(|error| Error::wrap("encoding a path's facts", error))?;
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    let value = HeaderValue::try_from(text)
        .map_err(|error| Error::wrap("encoding a path's facts", error))?;
    response
        .headers_mut()
        .insert("x-docker-container-path-stat", value);
    Ok(response)
}

/// `HEAD /containers/{id}/archive`
pub(crate) async fn stat(call: Call) -> Result<Response> {
    let stat = call
        .state
        .container_archive_stat(&call.scope(), &call.name, path(&call)?)
        .await?;
    with_stat(call::empty(StatusCode::OK)?, &stat)
}

/// `GET /containers/{id}/archive`
pub(crate) async fn get(call: Call) -> Result<Response> {
    let (stat, tar) = call
        .state
        .container_archive_get(&call.scope(), &call.name, path(&call)?)
        .await?;
    with_stat(call::stream(TAR, upload::body(tar))?, &stat)
}

/// `PUT /containers/{id}/archive`
pub(crate) async fn put(mut call: Call) -> Result<Response> {
    let upload = upload::Upload::new(call.take_body());
    let (no_overwrite, copy_owner) = (
        call.query.flag("noOverwriteDirNonDir"),
        call.query.flag("copyUIDGID"),
    );
    let done = call
        .state
        .container_archive_put(
            &call.scope(),
            &call.name,
            path(&call)?,
            upload.reader(),
            no_overwrite,
            copy_owner,
        )
        .await;
    if done.is_err() {
        upload.drain().await;
    }
    done?;
    call::empty(StatusCode::OK)
}

/// `GET /containers/{id}/export`
pub(crate) async fn export(call: Call) -> Result<Response> {
    let tar = call
        .state
        .container_export(&call.scope(), &call.name)
        .await?;
    call::stream("application/octet-stream", upload::body(tar))
}

/// `GET /containers/{id}/changes`
pub(crate) async fn changes(call: Call) -> Result<Response> {
    let changes = call
        .state
        .container_changes(&call.scope(), &call.name)
        .await?;
    let changes: Vec<_> = changes
        .into_iter()
        .map(|change| FilesystemChange {
            kind: change.kind,
            path: change.path,
        })
        .collect();
    // No changes at all is null.
    call::json(&Some(changes).filter(|changes| !changes.is_empty()))
}
