//! What the daemon and `kraud-shim` say to each other.
//!
//! Only the protocol lives in the library part; everything that the shim does is in its
//! binary, so that the daemon links nothing of it.

pub mod proto;
