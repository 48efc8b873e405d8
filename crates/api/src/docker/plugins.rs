//! Plugins: there are none.

use axum::response::Response;
use types::{Error, Result};

use super::{call, router::Call};

/// `GET /plugins`
pub(super) async fn list(call: Call) -> Result<Response> {
    call.query.filters()?.only(&["enabled", "capability"])?;
    call::json(&[(); 0])
}

/// What names a plugin.
pub(super) async fn missing(call: Call) -> Result<Response> {
    Err(Error::not_found(format!(
        "plugin {:?} not found",
        call.name
    )))
}

/// What would bring one in.
pub(super) async fn refuse(_: Call) -> Result<Response> {
    Err(Error::not_implemented(
        "kraud takes no docker plugins: volume classes and networks are built in",
    ))
}
