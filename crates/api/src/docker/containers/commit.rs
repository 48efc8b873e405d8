//! `POST /commit`.

use axum::{http::StatusCode, response::Response};
use engine::request::CommitRequest;
use types::Result;

use crate::docker::{call, images, router::Call, wire::IdResponse};

/// `POST /commit`
pub(crate) async fn commit(mut call: Call) -> Result<Response> {
    let config = call.json_or_none().await?;
    let text = |name: &str| call.query.text(name).to_owned();
    let request = CommitRequest {
        container: text("container"),
        repo: text("repo"),
        tag: text("tag"),
        comment: text("comment"),
        author: text("author"),
        pause: call
            .query
            .nonempty("pause")
            .is_none_or(crate::docker::query::is_true),
        changes: images::changes(&call.query),
        config,
    };
    let id = call.state.container_commit(&call.scope(), request).await?;
    call::json_with(StatusCode::CREATED, &IdResponse { id: id.to_string() })
}
