//! Swarm's calls, answered as a docker engine does that is in no swarm.

use axum::response::Response;
use types::{Error, Result};

use super::router::Call;

/// What needs a manager.
pub(super) async fn no_manager(_: Call) -> Result<Response> {
    Err(Error::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    ))
}

/// What needs a swarm.
pub(super) async fn no_swarm(_: Call) -> Result<Response> {
    Err(Error::unavailable("This node is not part of a swarm"))
}

/// What would make one.
pub(super) async fn refuse(_: Call) -> Result<Response> {
    Err(Error::not_implemented(
        "kraud does not do swarm mode; several kraud nodes form a cluster by themselves",
    ))
}
