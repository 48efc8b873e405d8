//! `/volumes`.

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use engine::request::VolumeCreate;
use serde::Deserialize;
use types::{Error, Result};

use super::{
    call, convert,
    router::Call,
    wire::volume::{VolumeList, VolumesPruned},
};

/// `GET /volumes`
pub(super) async fn list(call: Call) -> Result<Response> {
    let volumes = call
        .state
        .volume_list(&call.scope(), &call.query.filters()?)
        .await?;
    call::json(&VolumeList {
        volumes: volumes.iter().map(convert::volume).collect(),
        warnings: None,
    })
}

/// `POST /volumes/create`
pub(super) async fn create(mut call: Call) -> Result<Response> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Body {
        name: String,
        driver: String,
        driver_opts: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        cluster_volume_spec: Option<serde_json::Value>,
    }
    let body: Body = call.json_or_none().await?.unwrap_or_default();
    if body.cluster_volume_spec.is_some() {
        return Err(Error::unavailable(
            "cluster volumes need a swarm: this node is not part of a swarm",
        ));
    }
    let request = VolumeCreate {
        name: Some(body.name).filter(|name| !name.is_empty()),
        driver: body.driver,
        options: body.driver_opts,
        labels: body.labels,
    };
    let volume = call.state.volume_create(&call.scope(), request).await?;
    call::json_with(StatusCode::CREATED, &convert::volume(&volume))
}

/// `GET /volumes/{name}`
pub(super) async fn inspect(call: Call) -> Result<Response> {
    call::json(&convert::volume(
        &call.state.volume_inspect(&call.scope(), &call.name).await?,
    ))
}

/// `PUT /volumes/{name}`
pub(super) async fn update(_: Call) -> Result<Response> {
    Err(Error::unavailable(
        "only cluster volumes can be updated, and this node is not part of a swarm",
    ))
}

/// `DELETE /volumes/{name}`
pub(super) async fn remove(call: Call) -> Result<Response> {
    call.state
        .volume_remove(&call.scope(), &call.name, call.query.flag("force"))
        .await?;
    call::empty(StatusCode::NO_CONTENT)
}

/// `POST /volumes/prune`
pub(super) async fn prune(call: Call) -> Result<Response> {
    let mut filters = call.query.filters()?;
    if !call.since(42) {
        // Before API 1.42 named volumes went too.
        filters.add("all", "true");
    }
    let pruned = call.state.volume_prune(&call.scope(), &filters).await?;
    call::json(&VolumesPruned {
        volumes_deleted: Some(pruned.deleted),
        space_reclaimed: pruned.space_reclaimed,
    })
}
