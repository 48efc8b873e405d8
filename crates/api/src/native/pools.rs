//! `/pools`.

use axum::{http::StatusCode, response::Response};
use types::{
    Result,
    native::{PoolCreate, PoolGrow, PoolList},
};

use super::table::Call;
use crate::docker::call;

/// `GET /pools`
pub(super) async fn list(call: Call) -> Result<Response> {
    let pools = call.state.pool_list(&call.scope()).await?;
    call::json(&PoolList { pools })
}

/// `POST /pools`
pub(super) async fn create(mut call: Call) -> Result<Response> {
    let wanted: PoolCreate = call.json().await?;
    let pool = call.state.pool_create(&call.scope(), wanted).await?;
    call::json_with(StatusCode::CREATED, &pool)
}

/// `GET /pools/{pool}`
pub(super) async fn inspect(call: Call) -> Result<Response> {
    let pool = call.state.pool_inspect(&call.scope(), call.name(0)).await?;
    call::json(&pool)
}

/// `POST /pools/{pool}/grow`
pub(super) async fn grow(mut call: Call) -> Result<Response> {
    let by: PoolGrow = call.json().await?;
    let pool = call
        .state
        .pool_grow(&call.scope(), call.name(0), by)
        .await?;
    call::json(&pool)
}

/// `DELETE /pools/{pool}`
pub(super) async fn remove(call: Call) -> Result<Response> {
    call.state.pool_remove(&call.scope(), call.name(0)).await?;
    call::empty(StatusCode::NO_CONTENT)
}
