//! `GET /containers/json` and `GET /containers/{id}/json`.

use std::collections::BTreeMap;

use axum::response::Response;
use engine::{Engine, Scope, request::ListRequest, view::ContainerView};
use types::Result;

use crate::docker::{
    call,
    convert::{self, container::Places},
    router::Call,
};

/// `GET /containers/json`
pub(crate) async fn list(call: Call) -> Result<Response> {
    let limit: Option<i64> = call.query.number("limit")?;
    let request = ListRequest {
        all: call.query.flag("all"),
        // docker takes 0 and negative numbers for "no limit".
        limit: limit
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        size: call.query.flag("size"),
        filters: call.query.filters()?,
    };
    let scope = call.scope();
    let views = call.state.container_list(&scope, &request).await?;
    let names = image_names(&call.state, &scope, &views).await;
    let now = types::Time::now();
    let summaries: Vec<_> = views
        .iter()
        .map(|view| {
            convert::container::summary(view, names.get(view.record.config.image.as_str()), now)
        })
        .collect();
    call::json(&summaries)
}

/// Which image each name that a container was made from means today.
async fn image_names<'v>(
    engine: &Engine,
    scope: &Scope,
    views: &'v [ContainerView],
) -> BTreeMap<&'v str, String> {
    let mut names = BTreeMap::new();
    for view in views {
        let name = view.record.config.image.as_str();
        if !names.contains_key(name) {
            let image = engine.image_inspect(scope, name).await;
            names.insert(
                name,
                image
                    .map(|image| image.image.id.to_string())
                    .unwrap_or_default(),
            );
        }
    }
    names
}

/// `GET /containers/{id}/json`
pub(crate) async fn inspect(call: Call) -> Result<Response> {
    let scope = call.scope();
    let view = call
        .state
        .container_inspect(&scope, &call.name, call.query.flag("size"))
        .await?;
    let has_volumes = view
        .record
        .mounts
        .iter()
        .any(|mount| mount.volume.is_some());
    let places: Places = if has_volumes {
        call.state.volume_mountpoints(&scope).await?
    } else {
        Places::new()
    };
    call::json(&convert::container::inspect(&view, &places))
}
