//! HTTP/1 connections: keep-alive, clients that half-close, and connections that become raw
//! streams. Knows nothing of Docker.

pub mod conn;
pub mod hijack;
mod socket;

pub use conn::serve;
pub use hijack::{Duplex, Hijacked, Hijacker, Lookout};
pub use socket::HangUp;

#[cfg(test)]
mod tests;
