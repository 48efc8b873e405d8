//! The HTTP APIs of kraud: the Docker Engine API, v1.24 to v1.50, and the native API.
//!
//! Handlers validate, convert, and call the engine. They never touch the kernel, never
//! decide, and never keep state of their own. [`http`] carries connections (keep-alive,
//! half-close, hijacking), [`docker`] and [`native`] speak the protocols.

mod auth;
pub mod docker;
pub mod fuzz;
pub mod http;
pub mod native;

use std::future::Future;

use engine::Engine;
use tokio::net::UnixListener;

/// Serves both APIs on `listener` until `shutdown` resolves; requests under way then have a
/// few seconds to finish.
pub async fn serve(listener: UnixListener, engine: Engine, shutdown: impl Future<Output = ()>) {
    http::serve(listener, router(engine), shutdown).await;
}

/// Serves both APIs behind a door to the network until `shutdown` resolves.
pub async fn serve_tls(door: http::Door, engine: Engine, shutdown: impl Future<Output = ()>) {
    http::serve_tls(door, router(engine), shutdown).await;
}

/// Both APIs as a service, for requests whose [`http::Peer`] is known.
pub fn router(engine: Engine) -> axum::Router {
    let both = native::beside(docker::router(engine.clone()), engine.clone());
    auth::behind(both, engine)
}
