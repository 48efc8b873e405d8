//! What can go wrong with a call.

use std::io;

use types::Kind;

use crate::Host;

/// A result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// kraud was not reached.
    #[error("cannot connect to kraud at {host}")]
    Connect {
        host: Host,
        #[source]
        source: io::Error,
    },
    /// kraud refused, or failed, and says why.
    #[error("{}", .0.message)]
    Api(types::Error),
    /// The connection broke off on the way.
    #[error("speaking to kraud at {host}, {call}")]
    Broken {
        host: Host,
        call: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What answered is no kraud, or one of another time.
    #[error("{call} at {host}: {what}")]
    Unexpected {
        host: Host,
        call: String,
        what: String,
    },
}

impl Error {
    /// The kind of failure that kraud named, if it was kraud's.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Api(error) => Some(error.kind),
            _ => None,
        }
    }
}
