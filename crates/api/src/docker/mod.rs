//! The Docker Engine API, v1.24 to v1.50.
//!
//! [`router`] names every call; [`dispatch`] finds a request's row in it. One file per
//! family of calls holds the handlers, `wire` the bodies of the answers, `convert` the way
//! from the engine's views to them.

mod auth;
pub(crate) mod body;
mod build;
pub(crate) mod call;
mod compat;
mod containers;
mod convert;
mod detach;
pub(crate) mod dispatch;
pub(crate) mod error;
mod events;
mod exec;
mod frames;
mod gojson;
mod images;
mod lines;
mod networks;
mod plugins;
pub(crate) mod query;
mod router;
#[cfg(test)]
mod schema_tests;
mod session;
mod swarm;
mod system;
pub(crate) mod upload;
mod version;
mod volumes;
pub mod wire;
mod ws;

pub use self::{
    compat::compat_markdown,
    router::{router, table},
    version::ApiVersion,
};

/// Decodes a value as every kind of body, for fuzzing.
pub(crate) fn decode_all(value: &serde_json::Value) {
    let _ = containers::decode_create(value.clone());
    let _ = body::decode::<types::Config>(value.clone());
    let _ = body::decode::<engine::request::ExecRequest>(value.clone());
}
