//! HTTP/1 connections: keep-alive, clients that half-close, and connections that become raw
//! streams. Knows nothing of Docker.

pub mod conn;
mod door;
pub mod hijack;
mod peer;
mod socket;

pub use conn::serve;
pub use door::{Door, serve_tls};
pub use hijack::{Duplex, Hijacked, Hijacker, Lookout};
pub(crate) use peer::network_of;
pub use peer::{Peer, Session};
pub use socket::HangUp;

#[cfg(test)]
mod tests;
