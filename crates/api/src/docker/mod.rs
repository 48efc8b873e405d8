//! The Docker Engine API, v1.24 to v1.50.
//!
//! [`router`] names every call; [`dispatch`] finds a request's row in it. One file per
//! family of calls holds the handlers, `wire` the bodies of the answers, `convert` the way
//! from the engine's views to them.

pub mod body;
pub mod call;
pub mod detach;
pub mod dispatch;
pub mod error;
pub mod frames;
pub mod gojson;
pub mod lines;
pub mod query;
pub mod session;
pub mod version;
pub mod wire;
pub mod ws;
