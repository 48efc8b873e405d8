//! `/containers/{id}/exec` and `/exec`.

use axum::{http::StatusCode, response::Response};
use base64::Engine as _;
use engine::request::{ExecRequest, ExecStart};
use serde::Deserialize;
use types::{Kind, Result};

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
    let keys = call
        .state
        .exec_inspect(&scope, &call.name)
        .await?
        .request
        .detach_keys;
    let request = ExecStart {
        detach: body.detach,
        tty: body.tty,
        console_size: body.console_size,
    };
    if !body.detach {
        // Fails here rather than after the process was started.
        call.hijacker()?;
    }
    let content_type = frames::media_type(body.tty, call.since(42));
    match call.state.exec_start(&scope, &call.name, request).await {
        Ok(None) => call::empty(StatusCode::OK),
        Ok(Some(attached)) => {
            let options = Options {
                raw: body.tty,
                detach_keys: Some(detach::parse(Some(&keys))?),
            };
            session::begin(&call, content_type, options, attached)
        }
        // The request was fine and the process did not start: docker says so in the stream,
        // and the client learns the exit code (126, 127) from inspect.
        Err(error)
            if !body.detach && matches!(error.kind, Kind::InvalidParameter | Kind::System) =>
        {
            session::say(&call, content_type, body.tty, &error.message)
        }
        Err(error) => Err(error),
    }
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
