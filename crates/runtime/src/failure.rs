//! Turns the words of a failed OCI runtime into docker's, by which clients tell a missing
//! command (exit code 127) from one that may not be executed (126).

use std::path::Path;

use crate::error::{StartError, StartErrorKind};

/// A container could not be started. `command` is its first argument.
pub(crate) fn create_failed(runtime: &str, command: &str, words: &str) -> StartError {
    let (kind, reason) = match executable(command, words) {
        Some((kind, reason)) => (
            kind,
            format!("unable to start container process: error during container init: {reason}"),
        ),
        None => general(words),
    };
    let message = format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: {runtime}: {reason}: unknown"
    );
    finish(kind, message)
}

/// A process could not be started in a running container.
pub(crate) fn exec_failed(command: &str, cwd: &Path, words: &str) -> StartError {
    let found = executable(command, words).or_else(|| directory(cwd, words));
    let (kind, reason) = match found {
        Some((kind, reason)) => (kind, format!("unable to start container process: {reason}")),
        None => general(words),
    };
    finish(
        kind,
        format!("OCI runtime exec failed: exec failed: {reason}: unknown"),
    )
}

/// The command itself is what is wrong.
fn executable(command: &str, words: &str) -> Option<(StartErrorKind, String)> {
    let quoted = format!("exec: {command:?}");
    if words.contains("not found in $PATH") {
        let reason = if command.contains('/') {
            format!("{quoted}: stat {command}: no such file or directory")
        } else {
            format!("{quoted}: executable file not found in $PATH")
        };
        return Some((StartErrorKind::NotFound, reason));
    }
    if !words.contains("open executable") {
        return None;
    }
    if command.is_empty() {
        return Some((
            StartErrorKind::NotFound,
            format!("{quoted}: executable file not found in $PATH"),
        ));
    }
    // crun says that an executable which is no regular file is not permitted.
    let reason = if words.contains("Operation not permitted") {
        "is a directory: permission denied"
    } else {
        "permission denied"
    };
    Some((StartErrorKind::NotExecutable, format!("{quoted}: {reason}")))
}

/// The working directory is what is wrong.
fn directory(cwd: &Path, words: &str) -> Option<(StartErrorKind, String)> {
    if !words.contains("chdir") {
        return None;
    }
    let (kind, reason) = general(words);
    let cause = reason.rsplit(": ").next().unwrap_or_default();
    Some((
        kind,
        format!("chdir to cwd ({cwd:?}) set in config.json failed: {cause}"),
    ))
}

/// Any other failure, with the system's errors written as Go writes them.
fn general(words: &str) -> (StartErrorKind, String) {
    const ERRNO: [&str; 5] = [
        "No such file or directory",
        "Permission denied",
        "Not a directory",
        "Operation not permitted",
        "Invalid argument",
    ];
    let mut reason = words.trim().to_owned();
    for text in ERRNO {
        reason = reason.replace(text, &text.to_ascii_lowercase());
    }
    if reason.contains("not a directory") {
        reason.push_str(
            ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type",
        );
        return (StartErrorKind::NotFound, reason);
    }
    let kind = if reason.contains("no such file or directory")
        || reason.contains("executable file not found")
    {
        StartErrorKind::NotFound
    } else if reason.contains("permission denied") {
        StartErrorKind::NotExecutable
    } else {
        StartErrorKind::Other
    };
    (kind, reason)
}

fn finish(kind: StartErrorKind, message: String) -> StartError {
    StartError { kind, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: &str = "executable file `nosuch` not found in $PATH: No such file or directory";

    #[test]
    fn missing_command() {
        let error = create_failed("crun", "nosuch", MISSING);
        assert_eq!(error.kind.exit_code(), 127);
        assert_eq!(
            error.message,
            "failed to create task for container: failed to create shim task: OCI runtime create failed: crun: unable to start container process: error during container init: exec: \"nosuch\": executable file not found in $PATH: unknown"
        );
        let error = create_failed(
            "crun",
            "/no",
            "executable file `/no` not found in $PATH: No such file or directory",
        );
        assert!(
            error
                .message
                .contains("exec: \"/no\": stat /no: no such file or directory"),
            "{error}"
        );
        assert_eq!(
            create_failed("crun", "", "open executable: Operation not permitted").kind,
            StartErrorKind::NotFound
        );
    }

    #[test]
    fn not_executable() {
        let error = create_failed("crun", "/etc/passwd", "open executable: Permission denied");
        assert_eq!(error.kind.exit_code(), 126);
        assert!(
            error
                .message
                .ends_with("exec: \"/etc/passwd\": permission denied: unknown"),
            "{error}"
        );
        let error = create_failed("crun", "/etc", "open executable: Operation not permitted");
        assert_eq!(error.kind, StartErrorKind::NotExecutable);
    }

    #[test]
    fn exec_words() {
        let error = exec_failed("nosuch", Path::new("/"), MISSING);
        assert_eq!(
            error.message,
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH: unknown"
        );
        let error = exec_failed(
            "true",
            Path::new("/nodir"),
            "chdir `/nodir`: No such file or directory",
        );
        assert!(
            error.message.contains(
                "chdir to cwd (\"/nodir\") set in config.json failed: no such file or directory"
            ),
            "{error}"
        );
    }

    #[test]
    fn other_failures() {
        let error = create_failed("crun", "true", "mount `/a` to `/b`: Not a directory");
        assert!(
            error
                .message
                .contains("not a directory: Are you trying to mount"),
            "{error}"
        );
        assert_eq!(error.kind.exit_code(), 127);
        assert_eq!(
            create_failed("crun", "true", "cannot set memory limit")
                .kind
                .exit_code(),
            128
        );
    }
}
