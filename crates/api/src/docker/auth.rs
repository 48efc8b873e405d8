//! `POST /auth`: checks credentials against a registry.

use axum::response::Response;
use types::{Error, Result};

use super::router::Call;

/// `POST /auth`
pub(super) async fn check(_: Call) -> Result<Response> {
    Err(Error::not_implemented(
        "checking a registry's credentials is not done yet",
    ))
}
