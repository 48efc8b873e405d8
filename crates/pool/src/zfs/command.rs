//! Runs `zpool` and `zfs`: with a deadline, and with errors that say what to do.
//!
//! It does not know what the commands mean.

use std::{
    ffi::OsStr,
    fmt,
    io::Read,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use types::{Error, error::Kind};

/// For commands that change or show one thing.
pub(super) const SHORT: Duration = Duration::from_secs(60);
/// For those whose work grows with what they are given: import, create and destroy.
pub(super) const LONG: Duration = Duration::from_secs(300);

/// Administrators' commands are often not on the PATH of a service.
const DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A command that did not succeed.
#[derive(Debug)]
pub(super) struct Failed {
    /// The command as one would type it.
    line: String,
    pub why: Why,
}

/// What became of a command that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is not installed.
    Missing,
    /// It could not be started or watched.
    Start(String),
    /// It did not end in time, and was killed.
    Deadline(Duration),
    /// It ended with a failure and said this.
    Said(String),
}

impl Failed {
    fn said(&self, phrases: &[&str]) -> bool {
        matches!(&self.why, Why::Said(text) if phrases.iter().any(|phrase| text.contains(phrase)))
    }
    /// What it was to work on does not exist.
    pub(super) fn is_absent(&self) -> bool {
        self.said(&[
            "does not exist",
            "could not find any snapshots",
            "no such pool",
        ])
    }
    /// What it was to make is there already.
    pub(super) fn exists(&self) -> bool {
        self.said(&["already exists"])
    }
    /// Something uses the object.
    pub(super) fn is_busy(&self) -> bool {
        self.said(&["busy"])
    }
    /// It may succeed in a moment. zfs-fuse gives an I/O error for a file system that is being
    /// unmounted.
    pub(super) fn may_pass(&self) -> bool {
        !self.is_mounted() && (self.is_busy() || self.said(&["I/O error"]))
    }
    /// It is mounted already.
    pub(super) fn is_mounted(&self) -> bool {
        self.said(&["already mounted"])
    }
    /// A snapshot has clones.
    pub(super) fn has_clones(&self) -> bool {
        self.said(&["has dependent clones", "snapshot has dependent"])
    }
    /// A limit is below what is in use.
    pub(super) fn is_below_use(&self) -> bool {
        self.said(&["less than current used"])
    }
    /// There is no room, or no room within the quota.
    pub(super) fn is_full(&self) -> bool {
        self.said(&["out of space", "No space left", "quota exceeded"])
    }
    fn no_daemon(&self) -> bool {
        self.said(&["zfs-fuse daemon is running"])
    }
    fn no_module(&self) -> bool {
        self.said(&[
            "modprobe zfs",
            "modules are not loaded",
            "/dev/zfs and /proc/self/mounts are required",
        ])
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = &self.line;
        match &self.why {
            Why::Missing => write!(
                f,
                "{line}: there is no such command; ZFS pools need it: install OpenZFS (Debian: zfsutils-linux and zfs-dkms) or zfs-fuse"
            ),
            Why::Start(text) => write!(f, "{line}: {text}"),
            Why::Deadline(after) => write!(
                f,
                "{line}: no answer within {} s, so it was killed; `zpool status` and the kernel's log say whether a device hangs",
                after.as_secs()
            ),
            Why::Said(_) if self.no_daemon() => write!(
                f,
                "{line}: the daemon zfs-fuse is not running: start it (systemctl start zfs-fuse)"
            ),
            Why::Said(text) if self.no_module() => write!(
                f,
                "{line}: the kernel has no ZFS: modprobe zfs, or install it ({text})"
            ),
            Why::Said(text) => write!(f, "{line}: {text}"),
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        let kind = match &failed.why {
            Why::Missing | Why::Deadline(_) => Kind::Unavailable,
            Why::Said(_) if failed.no_daemon() || failed.no_module() => Kind::Unavailable,
            Why::Said(_) if failed.is_busy() || failed.exists() => Kind::Conflict,
            Why::Said(_) if failed.is_absent() => Kind::NotFound,
            _ => Kind::System,
        };
        let hint = if failed.is_full() {
            ". The pool is full: remove snapshots or volumes, or let it grow"
        } else {
            ""
        };
        Self::new(kind, format!("{failed}{hint}"))
    }
}

fn locate(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Runs `program` and returns what it printed.
pub(super) fn run<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    deadline: Duration,
) -> Result<String, Failed> {
    let line = args.iter().fold(program.to_owned(), |mut line, arg| {
        line.push(' ');
        line.push_str(&arg.as_ref().to_string_lossy());
        line
    });
    let failed = |why| Failed {
        line: line.clone(),
        why,
    };
    let file = locate(program).ok_or_else(|| failed(Why::Missing))?;
    let start = |source: std::io::Error| failed(Why::Start(source.to_string()));
    let mut child = Command::new(file)
        .args(args)
        // Its messages are looked at here.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A signal to our group must not cut a change short.
        .process_group(0)
        .spawn()
        .map_err(start)?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    if !ended(&child, deadline).map_err(start)? {
        abandon(child);
        return Err(failed(Why::Deadline(deadline)));
    }
    let status = child.wait().map_err(start)?;
    // A mount helper that it left behind may hold the pipes open.
    let patience = Duration::from_secs(5);
    let output = stdout.recv_timeout(patience).unwrap_or_default();
    let message = stderr.recv_timeout(patience).unwrap_or_default();
    tracing::trace!(command = line, %status, "zfs");
    if status.success() {
        return Ok(output);
    }
    let message = message.trim().lines().collect::<Vec<_>>().join("; ");
    Err(failed(Why::Said(if message.is_empty() {
        status.to_string()
    } else {
        message
    })))
}

/// Reads a pipe to its end on a thread of its own: a full pipe would block the command.
fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

/// Waits until a child has ended, at most for `patience`.
fn ended(child: &Child, patience: Duration) -> std::io::Result<bool> {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&handle, PollFlags::IN)];
        match poll(&mut fds, Some(&left.try_into().unwrap_or_default())) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills a child. One that hangs in the kernel does not die of it: it is reaped whenever it ends.
fn abandon(mut child: Child) {
    let _ = child.kill();
    thread::spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_failure() {
        assert_eq!(run("echo", &["a", "b"], SHORT).unwrap(), "a b\n");
        let failed = run(
            "sh",
            &["-c", "echo first >&2; echo it is busy >&2; exit 3"],
            SHORT,
        )
        .unwrap_err();
        assert!(failed.is_busy() && !failed.is_absent());
        let error = Error::from(failed);
        assert_eq!(error.kind, Kind::Conflict);
        assert!(error.message.ends_with("first; it is busy"), "{error}");
    }

    #[test]
    fn more_than_a_pipe_holds() {
        let text = run(
            "sh",
            &["-c", "head -c 1000000 /dev/zero | tr '\\0' x"],
            SHORT,
        )
        .unwrap();
        assert_eq!(text.len(), 1_000_000);
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let from = Instant::now();
        let failed = run("sleep", &["60"], Duration::from_millis(100)).unwrap_err();
        assert_eq!(failed.why, Why::Deadline(Duration::from_millis(100)));
        assert!(from.elapsed() < Duration::from_secs(10));
        assert_eq!(Error::from(failed).kind, Kind::Unavailable);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Error::from(run("kraud-no-such", &["x"], SHORT).unwrap_err());
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains("zfsutils-linux"), "{error}");
        let error = Error::from(Failed {
            line: "zfs list".into(),
            why: Why::Said("Please make sure that the zfs-fuse daemon is running.".into()),
        });
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains("start it"), "{error}");
    }
}
