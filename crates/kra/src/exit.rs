//! Failures as users see them: a message, what to do next, and the exit code.
//!
//! This is the one place that chooses exit codes.

use std::{error::Error as _, io, process::ExitCode};

use types::Kind;

/// What a command ends with.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Exit codes; the help of `kra` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Forbidden = 5,
    Unreachable = 6,
    Unavailable = 7,
    Invalid = 8,
    /// As a shell has it for a program that was ended by SIGINT.
    Interrupted = 130,
}

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::InvalidParameter => Self::Invalid,
            Kind::NotFound => Self::NotFound,
            Kind::Conflict => Self::Conflict,
            Kind::NotModified => Self::Done,
            Kind::Unauthorized | Kind::Forbidden => Self::Forbidden,
            Kind::TooMany | Kind::NotImplemented | Kind::Unavailable => Self::Unavailable,
            Kind::System => Self::Failed,
        }
    }
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    message: String,
    hint: Option<String>,
    /// The exit code of a program that was run for the user.
    child: Option<u8>,
}

impl Failure {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            child: None,
        }
    }

    /// The command line is well formed but makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Something of this machine failed.
    pub(crate) fn io(operation: &str, error: io::Error) -> Self {
        // Whoever read our output has had enough: no failure.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Code::Done, "");
        }
        let error = types::Error::wrap(operation, error);
        Self::new(Code::Failed, error.message)
    }

    /// The engine of this machine that images come from failed.
    pub(crate) fn engine(error: client::Error) -> Self {
        match error {
            client::Error::Api(error) => error.into(),
            client::Error::Connect { host, source } => Self::new(
                Code::Unreachable,
                format!("cannot connect to the engine at {host}: {source}"),
            )
            .hint("is docker or podman running here? --engine names another socket, --archive an archive"),
            client::Error::Broken { host, source, .. } => Self::new(
                Code::Failed,
                format!("the engine at {host} broke off: {source}"),
            ),
            client::Error::Unexpected { host, what, .. } => {
                Self::new(Code::Failed, format!("the engine at {host}: {what}"))
            }
        }
    }

    /// Something did not come out as it should.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// A program that was run for the user has failed, and said why.
    pub(crate) fn of_child(code: Option<i32>) -> Self {
        Self {
            child: code.and_then(|code| u8::try_from(code).ok()),
            ..Self::new(Code::Failed, "")
        }
    }

    /// The user pressed ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Self::new(Code::Interrupted, "interrupted")
    }

    /// Several things failed and each was reported.
    pub(crate) fn reported(code: Code) -> Self {
        Self::new(code, "")
    }

    /// The same with what to do next, in place of what was known before.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with what to do next if the failure is of this sort.
    pub(crate) fn hint_if(self, code: Code, hint: impl FnOnce() -> String) -> Self {
        if self.code == code {
            self.hint(hint())
        } else {
            self
        }
    }

    /// Says it on standard error.
    pub(crate) fn say(&self) {
        if !self.message.is_empty() {
            eprintln!("kra: {}", lines(&self.message));
        }
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
    }

    /// Says it, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        self.say();
        ExitCode::from(self.child.unwrap_or(self.code as u8))
    }
}

/// A message of several lines may keep them, but nothing else that drives a terminal.
fn lines(message: &str) -> String {
    message
        .lines()
        .map(term::safe)
        .collect::<Vec<_>>()
        .join("\n")
}

impl From<io::Error> for Failure {
    /// Of writing to standard output: everything else names its operation.
    fn from(error: io::Error) -> Self {
        Self::io("writing the output", error)
    }
}

impl From<types::Error> for Failure {
    fn from(error: types::Error) -> Self {
        Self::new(error.kind.into(), error.message)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Api(error) => error.into(),
            client::Error::Connect {
                ref source,
                ref host,
            } => {
                let failure = Self::new(Code::Unreachable, chain(&error));
                let text = source.to_string();
                match source.kind() {
                    // Of TLS, whose errors have no kinds of their own here.
                    io::ErrorKind::InvalidData if text.contains("UnknownIssuer") => failure.hint(
                        "no authority that is known here has signed the server's certificate: ask its operator what `kraud fingerprint` prints, and give that to kra login --fingerprint or in KR_FINGERPRINT",
                    ),
                    io::ErrorKind::InvalidData if text.contains("NotValidForName") => failure.hint(
                        "the server's certificate is for other names: its operator adds this one to `names` in kraud.toml",
                    ),
                    io::ErrorKind::InvalidData => failure,
                    _ if matches!(host, client::Host::Https { .. }) => failure.hint(
                        "is kraud running there, and is its port open? (kraud serve --listen, 2376 unless told otherwise)",
                    ),
                    io::ErrorKind::PermissionDenied => failure.hint(
                        "the socket is for root and the group kraud: usermod -aG kraud $USER, then log in again",
                    ),
                    _ => failure.hint(
                        "is kraud running? (systemctl status kraud) If its socket is elsewhere: KR_HOST=unix:///path/to/kraud.sock",
                    ),
                }
            }
            client::Error::Broken { .. } => Self::new(Code::Unreachable, chain(&error))
                .hint("what was asked for may have been done or not: look before you ask again"),
            client::Error::Unexpected { .. } => Self::new(Code::Failed, chain(&error))
                .hint("is that a kraud, and as new as this kra? (kra version)"),
        }
    }
}

/// An error with all of its causes.
fn chain(error: &client::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = next.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_failures_can_be_told_apart() {
        for (kind, code) in [
            (Kind::NotFound, 3),
            (Kind::Conflict, 4),
            (Kind::Forbidden, 5),
            (Kind::Unavailable, 7),
            (Kind::NotImplemented, 7),
            (Kind::InvalidParameter, 8),
            (Kind::System, 1),
        ] {
            assert_eq!(Code::from(kind) as u8, code, "{kind:?}");
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.code, Code::Done);
        assert!(failure.message.is_empty());
    }

    #[test]
    fn hints_belong_to_their_failure() {
        let failure = Failure::from(types::Error::not_found("no volume x"));
        let failure = failure.hint_if(Code::Conflict, || "not this".into());
        assert_eq!(failure.hint, None);
        let failure = failure.hint_if(Code::NotFound, || "this".into());
        assert_eq!(failure.hint.as_deref(), Some("this"));
    }
}
