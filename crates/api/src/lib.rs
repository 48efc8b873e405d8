//! The HTTP APIs of kraud: the Docker Engine API, v1.24 to v1.50, and the native API.
//!
//! Handlers validate, convert, and call the engine. They never touch the kernel, never
//! decide, and never keep state of their own. [`http`] carries connections (keep-alive,
//! half-close, hijacking), [`docker`] and [`native`] speak the protocols.

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

/// Both APIs as a service.
pub fn router(engine: Engine) -> axum::Router {
    native::beside(docker::router(engine.clone()), engine)
}
