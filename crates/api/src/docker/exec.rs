//! `/containers/{id}/exec` and `/exec`.

use axum::{http::StatusCode, response::Response};
use base64::Engine as _;
use engine::request::{ExecRequest, ExecStart};
use serde::Deserialize;
use types::{Error, Result};

use super::{
    call, detach, frames,
    router::Call,
    session::{self, Options},
    wire::{
        IdResponse,
        exec::{ExecInspect, ProcessConfig},
    },
};

/// `POST /containers/{id}/exec`
pub(super) async fn create(mut call: Call) -> Result<Response> {
    let request: ExecRequest = call.json().await?;
    detach::parse(Some(&request.detach_keys))?;
    let id = call
        .state
        .exec_create(&call.scope(), &call.name, request)
        .await?;
    call::json_with(StatusCode::CREATED, &IdResponse { id: id.to_string() })
}

/// `POST /exec/{id}/start`
pub(super) async fn start(mut call: Call) -> Result<Response> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Body {
        detach: bool,
        tty: bool,
        console_size: Option<[u32; 2]>,
    }
    let body: Body = call.json_or_none().await?.unwrap_or_default();
    let scope = call.scope();
    let session = call.state.exec_inspect(&scope, &call.name).await?;
    let keys = detach::parse(Some(&session.request.detach_keys))?;
    let request = ExecStart {
        detach: body.detach,
        tty: body.tty,
        console_size: body.console_size,
    };
    let (engine, name) = (call.state.clone(), call.name.clone());
    // One that was started before is refused with a status, as is a detached one that fails.
    if body.detach || session.running || session.exit_code.is_some() {
        engine.exec_start(&scope, &name, request).await?;
        return call::empty(StatusCode::OK);
    }
    // Else the request was fine, and when the process does not start, docker says so in the
    // stream; the client learns the exit code (126, 127) from inspect.
    let start = async move {
        let attached = engine.exec_start(&scope, &name, request).await?;
        attached.ok_or_else(|| Error::system(format!("exec {name} gave no streams")))
    };
    let options = Options {
        raw: body.tty,
        detach_keys: Some(keys),
    };
    session::begin(
        &call,
        frames::media_type(body.tty, call.since(42)),
        options,
        start,
    )
}

/// `POST /exec/{id}/resize`
pub(super) async fn resize(call: Call) -> Result<Response> {
    let (height, width) = call.query.size()?;
    call.state
        .exec_resize(&call.scope(), &call.name, height, width)
        .await?;
    call::empty(StatusCode::OK)
}

/// `GET /exec/{id}/json`
pub(super) async fn inspect(call: Call) -> Result<Response> {
    let view = call.state.exec_inspect(&call.scope(), &call.name).await?;
    let request = view.request;
    let keys = if request.detach_keys.is_empty() {
        Vec::new()
    } else {
        detach::parse(Some(&request.detach_keys))?
    };
    call::json(&ExecInspect {
        id: view.id.to_string(),
        running: view.running,
        exit_code: view.exit_code,
        process_config: ProcessConfig {
            tty: request.tty,
            entrypoint: view.entrypoint,
            arguments: view.arguments,
            privileged: request.privileged,
            user: request.user,
        },
        open_stdin: request.attach_stdin,
        open_stderr: request.attach_stderr,
        open_stdout: request.attach_stdout,
        can_remove: !view.running && view.exit_code.is_some(),
        container_id: view.container.to_string(),
        detach_keys: base64::engine::general_purpose::STANDARD.encode(keys),
        pid: view.pid,
    })
}
