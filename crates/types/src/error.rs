//! The one error that crosses crate borders towards the APIs.
//!
//! A [`Kind`] says what sort of failure it is, never which HTTP status or exit code follows:
//! those are chosen in one file each (`api/src/docker/error.rs`, `kra/src/exit.rs`).

use std::fmt;

/// What sort of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request itself is wrong and will stay wrong.
    InvalidParameter,
    /// The named object does not exist, or not for this caller.
    NotFound,
    /// The object's state, or another object, stands in the way.
    Conflict,
    /// The object already is as asked.
    NotModified,
    /// The caller did not say who it is.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// The caller asks too often, or for too much at once.
    TooMany,
    /// kraud does not do this (yet).
    NotImplemented,
    /// Something that is needed is not there right now; trying again can help.
    Unavailable,
    /// The kernel, the disk or kraud itself failed.
    System,
}

/// An error with its kind and a message that names the operation and the object.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The sort of failure.
    pub kind: Kind,
    /// Names the operation and the object and, where one exists, the remedy.
    pub message: String,
}

/// A result with the crate-crossing [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, message)
    }
    /// The named object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    /// The object's state, or another object, stands in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
    /// The object already is as asked.
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(Kind::NotModified, message)
    }
    /// The caller may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }
    /// kraud does not do this (yet).
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(Kind::NotImplemented, message)
    }
    /// Something that is needed is not there right now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }
    /// The kernel, the disk or kraud itself failed.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }

    /// A [`Kind::System`] error for a failed `operation` (which names its object), followed
    /// by the whole chain of causes.
    pub fn wrap(operation: impl fmt::Display, source: impl std::error::Error) -> Self {
        let mut message = format!("{operation}: {source}");
        let mut cause = source.source();
        while let Some(next) = cause {
            let text = next.to_string();
            // Some libraries repeat their source in their own message.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = next.source();
        }
        Self::system(message)
    }

    /// The same error, its message led by `context`.
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self {
            kind: self.kind,
            message: format!("{context}: {}", self.message),
        }
    }
}

/// Turns foreign errors into [`Error`]s with the operation and the object named.
pub trait ResultExt<T> {
    /// On failure: [`Error::wrap`] with the operation that `operation` names.
    fn during<D: fmt::Display>(self, operation: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: std::error::Error> ResultExt<T> for std::result::Result<T, E> {
    fn during<D: fmt::Display>(self, operation: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|source| Error::wrap(operation(), source))
    }
}
