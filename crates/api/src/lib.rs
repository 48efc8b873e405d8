//! The HTTP APIs of kraud; today the Docker Engine API, v1.24 to v1.50.
//!
//! Handlers validate, convert, and call the engine. They never touch the kernel, never
//! decide, and never keep state of their own. [`http`] carries connections (keep-alive,
//! half-close, hijacking), [`docker`] speaks the protocol.

pub mod docker;
pub mod fuzz;
pub mod http;

pub use docker::serve;
