//! Registries: pulling from and pushing to them, docker's way.
//!
//! A client of the OCI distribution specification v1.1 and docker's registry API v2. It owns
//! the protocol, authorization, retries, verification of every byte by its digest, and the
//! words and errors that docker's users know. Where layers are kept is not its matter: a pull
//! hands them to a [`PullSink`], a push takes them from a [`PushSource`].
//!
//! | file | what |
//! |---|---|
//! | `client` | options, HTTPS or HTTP, login check |
//! | `connection` | one repository: requests, authorization renewed, retries |
//! | `auth`, `challenge` | credentials, tokens |
//! | `manifest`, `platform` | documents and choosing among them |
//! | `resolve` | from a reference to a verified manifest |
//! | `blob` | a layer's bytes: resumed, verified, decompressed while they arrive |
//! | `pull`, `push`, `upload` | the two operations |
//! | `outside` | for whom the networks around the machine are out of bounds |
//! | `fault` | what goes wrong, in docker's words |
//! | `glue` | the layer store as sink and source |

mod auth;
mod blob;
mod challenge;
mod client;
mod connection;
mod fault;
mod glue;
mod manifest;
mod outside;
mod platform;
mod progress;
mod pull;
mod push;
mod resolve;
mod upload;

#[cfg(test)]
mod tests;

pub use auth::Credentials;
pub use client::{Client, Options};
pub use connection::Patience;
pub use glue::{Known, PullKeeper};
pub use manifest::{Descriptor, Manifest};
pub use platform::Platform;
pub use progress::{Progress, Report};
pub use pull::{PullRequest, PullSink, Pulled, PulledImage};
pub use push::{KnownBlob, PushImage, PushLayer, PushSource, Pushed, headline};
pub use resolve::{Inspection, Resolved};
pub use upload::gzip;
