//! Calls that change a container's life, and waiting for its end.

use axum::{body::Body, http::StatusCode, response::Response};
use bytes::Bytes;
use engine::request::{RemoveRequest, UpdateRequest, WaitCondition};
use http_body::Body as _;
use serde::Deserialize;
use types::{
    Error, Result,
    container::{Resources, RestartPolicy},
};

use crate::docker::{
    body, call,
    router::Call,
    wire::container::{ContainerUpdated, ContainersPruned, WaitError, WaitResponse},
};

fn done() -> Result<Response> {
    call::empty(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/start`
pub(crate) async fn start(call: Call) -> Result<Response> {
    // Some clients send `{}` or `null`; more than that is a host config of before API 1.24.
    if call.body.size_hint().lower() > 7 {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if call.query.nonempty("checkpoint").is_some() {
        return Err(Error::not_implemented(format!(
            "starting container {}: checkpoints are not done yet",
            call.name
        )));
    }
    call.state
        .container_start(&call.scope(), &call.name)
        .await?;
    done()
}

/// `POST /containers/{id}/stop`
pub(crate) async fn stop(call: Call) -> Result<Response> {
    let (signal, timeout) = (call.query.nonempty("signal"), call.query.number("t")?);
    call.state
        .container_stop(&call.scope(), &call.name, signal, timeout)
        .await?;
    done()
}

/// `POST /containers/{id}/restart`
pub(crate) async fn restart(call: Call) -> Result<Response> {
    let (signal, timeout) = (call.query.nonempty("signal"), call.query.number("t")?);
    call.state
        .container_restart(&call.scope(), &call.name, signal, timeout)
        .await?;
    done()
}

/// `POST /containers/{id}/kill`
pub(crate) async fn kill(call: Call) -> Result<Response> {
    call.state
        .container_kill(&call.scope(), &call.name, call.query.nonempty("signal"))
        .await?;
    done()
}

/// `POST /containers/{id}/pause`
pub(crate) async fn pause(call: Call) -> Result<Response> {
    call.state
        .container_pause(&call.scope(), &call.name)
        .await?;
    done()
}

/// `POST /containers/{id}/unpause`
pub(crate) async fn unpause(call: Call) -> Result<Response> {
    call.state
        .container_unpause(&call.scope(), &call.name)
        .await?;
    done()
}

/// `POST /containers/{id}/rename`
pub(crate) async fn rename(call: Call) -> Result<Response> {
    call.state
        .container_rename(&call.scope(), &call.name, call.query.text("name"))
        .await?;
    done()
}

/// `POST /containers/{id}/update`
pub(crate) async fn update(mut call: Call) -> Result<Response> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Policy {
        restart_policy: Option<RestartPolicy>,
    }
    let value = call.json_value().await?.ok_or_else(body::empty)?;
    let policy: Policy = body::decode(value.clone())?;
    let resources: Resources = body::decode(value)?;
    let restart_policy = policy
        .restart_policy
        .filter(|policy| !policy.name.is_empty());
    let request = UpdateRequest {
        resources,
        restart_policy,
    };
    let warnings = call
        .state
        .container_update(&call.scope(), &call.name, request)
        .await?;
    call::json(&ContainerUpdated {
        warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
    })
}

/// `DELETE /containers/{id}`
pub(crate) async fn remove(call: Call) -> Result<Response> {
    if call.query.flag("link") {
        call.state
            .container_unlink(&call.scope(), &call.name)
            .await?;
        return done();
    }
    let request = RemoveRequest {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
    };
    call.state
        .container_remove(&call.scope(), &call.name, request)
        .await?;
    done()
}

/// `POST /containers/prune`
pub(crate) async fn prune(call: Call) -> Result<Response> {
    let pruned = call
        .state
        .container_prune(&call.scope(), &call.query.filters()?)
        .await?;
    call::json(&ContainersPruned {
        containers_deleted: Some(pruned.deleted).filter(|ids| !ids.is_empty()),
        space_reclaimed: pruned.space_reclaimed,
    })
}

/// `POST /containers/{id}/wait`
///
/// The status goes out at once: a client starts the container only when it knows that its
/// wait is registered.
pub(crate) async fn wait(call: Call) -> Result<Response> {
    let condition = match call.query.text("condition") {
        _ if !call.since(30) => WaitCondition::NotRunning,
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(Error::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiter = call
        .state
        .container_wait(&call.scope(), &call.name, condition)?;
    let body = futures_util::stream::once(async move {
        let outcome = waiter.outcome().await;
        let body = WaitResponse {
            error: outcome.error.map(|message| WaitError { message }),
            status_code: outcome.exit_code,
        };
        let mut text = serde_json::to_vec(&body)?;
        text.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(text))
    });
    call::stream("application/json", Body::from_stream(body))
}
