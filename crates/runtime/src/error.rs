//! Why something with a container failed.

use std::{fmt, io};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No OCI runtime is registered under this name.
    #[error("unknown or invalid runtime name: {0}")]
    UnknownRuntime(String),
    /// A process could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no such process any more.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The specification asks for something impossible.
    #[error("{0}")]
    Invalid(String),
    /// The kernel or the disk failed.
    #[error("{operation}: {source}")]
    Io {
        operation: String,
        source: io::Error,
    },
}

/// Why a process could not be started, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// Whose fault it is.
    pub kind: StartErrorKind,
    /// The whole message.
    pub message: String,
}

/// Sorts of [`StartError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartErrorKind {
    /// The command, its directory or a mount's source does not exist.
    NotFound,
    /// The command exists and may not be executed.
    NotExecutable,
    /// All else.
    Other,
}

impl StartErrorKind {
    /// The exit code that docker records for it.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::Other => 128,
        }
    }
}

impl Error {
    /// For `map_err` on I/O: names the operation with its object.
    pub(crate) fn io<D: fmt::Display>(operation: D) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation: operation.to_string(),
            source,
        }
    }
}

impl From<oci_spec::OciSpecError> for Error {
    fn from(error: oci_spec::OciSpecError) -> Self {
        Self::Invalid(format!("build the OCI specification: {error}"))
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::UnknownRuntime(_) | Error::Invalid(_) => types::Kind::InvalidParameter,
            Error::NotRunning(_) => types::Kind::Conflict,
            Error::Start(start) if start.kind != StartErrorKind::Other => {
                types::Kind::InvalidParameter
            }
            Error::Start(_) | Error::Io { .. } => types::Kind::System,
        };
        Self::new(kind, error.to_string())
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(Error::Io {
            operation: "run blocking work".into(),
            source: io::Error::other(join),
        }),
    }
}
