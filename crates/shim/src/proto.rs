//! The shim's configuration, its reports, and the frames of its attach socket.
//!
//! A shim works in one directory of the daemon's run directory ([`files`]). It is started
//! with that directory as its only argument, with a listening unix stream socket as its
//! standard input (so that clients can connect before it runs) and with the pipe for its
//! one [`Report`] as its standard output.
//!
//! On the socket both sides send frames: kind (u8), length of the payload (u32, little
//! endian), payload. A client says [`kind::HELLO`] first and gets [`kind::WELCOME`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Names inside the shim's directory.
pub mod files {
    /// The [`Config`](super::Config), read once.
    pub const CONFIG: &str = "shim.json";
    /// The socket for clients, bound by the daemon.
    pub const SOCKET: &str = "attach.sock";
    /// [`Started`](super::Started), written when the process runs.
    pub const STARTED: &str = "started.json";
    /// Where the OCI runtime writes the process id.
    pub const PID: &str = "pid";
    /// Where the OCI runtime writes its errors, one JSON object per line.
    pub const RUNTIME_LOG: &str = "runtime.log";
    /// Where the OCI runtime's standard error goes when the process has a terminal.
    pub const RUNTIME_STDERR: &str = "runtime.stderr";
    /// Over this socket the OCI runtime sends the terminal.
    pub const CONSOLE: &str = "console.sock";
}

/// What one shim has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The OCI runtime's command line; run in the shim's directory.
    pub argv: Vec<String>,
    /// Whether the process gets a terminal (then standard error is part of it).
    pub tty: bool,
    /// First size of the terminal, in characters; 0 leaves the kernel's default.
    pub width: u16,
    /// See `width`.
    pub height: u16,
    /// User and group that own its pipes; `None` for root.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
    /// What its standard input is.
    pub stdin: Stdin,
    /// Where its output is logged, if at all.
    pub log: Option<Log>,
    /// Where the [`Exit`] is written.
    pub exit_file: PathBuf,
    /// Whether the exit file is synced to the disk (after everybody was told).
    pub exit_sync: bool,
    /// The control group's file that counts OOM kills in a line `oom_kill N`.
    pub oom_file: Option<PathBuf>,
    /// Limits of resources, by name (`RLIMIT_NOFILE`), that the process is to have: where its own
    /// hard limit is lower, the OCI runtime gets this one. In a user namespace it could not raise
    /// any.
    #[serde(default)]
    pub limits: Vec<(String, u64)>,
    /// A mount that the OCI runtime must not see.
    pub hide_mount: Option<PathBuf>,
    /// Output is not read before a first client has said hello for it, or 10 s have passed.
    pub wait_attach: bool,
}

/// What the standard input of the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdin {
    /// /dev/null
    None,
    /// Closed when a client says [`kind::STDIN_CLOSE`].
    Once,
    /// Open for client after client.
    Keep,
}

/// A log in docker's json-file format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The newest file; older ones get `.1`, `.2`, …
    pub path: PathBuf,
    /// Rotated when this many bytes are reached.
    pub max_size: Option<u64>,
    /// Files kept, the newest included; at least 1.
    pub max_file: u32,
    /// A JSON object that each line carries as `attrs`.
    pub attrs: Option<String>,
}

/// The one line that the shim writes to its standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// The process runs.
    Started(Started),
    /// The OCI runtime failed; its words.
    Failed(String),
}

/// A running process, safe against reuse of its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its id in the host's namespace; 0 as long as it is not started.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat (clock ticks since boot); 0 when it was already gone.
    pub start_time: u64,
}

/// How the process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0–255; 128 + N after signal N.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel's OOM killer struck in its control group.
    pub oom: bool,
    /// RFC 3339, UTC, with nanoseconds.
    pub finished_at: String,
}

/// Kinds of frames.
pub mod kind {
    /// Client, first of all: one byte of [`hello`](super::hello) flags.
    pub const HELLO: u8 = 1;
    /// Client: bytes for standard input.
    pub const STDIN: u8 = 2;
    /// Client: no more standard input.
    pub const STDIN_CLOSE: u8 = 3;
    /// Client: width and height of the terminal (u16 each, little endian).
    pub const RESIZE: u8 = 4;

    /// Shim, answer to `HELLO`: [`Started`](super::Started) as JSON.
    pub const WELCOME: u8 = 16;
    /// Shim, to clients that were welcomed too early: [`Started`](super::Started) as JSON.
    pub const STARTED: u8 = 17;
    /// Shim: bytes of standard output or of the terminal.
    pub const STDOUT: u8 = 18;
    /// Shim: bytes of standard error.
    pub const STDERR: u8 = 19;
    /// Shim, last of all: [`Exit`](super::Exit) as JSON.
    pub const EXIT: u8 = 20;
}

/// What a client wants.
pub mod hello {
    /// It will send standard input.
    pub const STDIN: u8 = 1;
    /// It wants standard output.
    pub const STDOUT: u8 = 2;
    /// It wants standard error.
    pub const STDERR: u8 = 4;
}

/// Bytes of a frame's header.
pub const HEADER: usize = 5;
/// The largest payload that is accepted.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// The header of a frame.
pub fn header(kind: u8, payload: usize) -> [u8; HEADER] {
    let length = u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes();
    [kind, length[0], length[1], length[2], length[3]]
}

/// Kind and payload length at the start of `bytes`; `None` when it is too short for that.
pub fn parse_header(bytes: &[u8]) -> Option<(u8, usize)> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
    Some((header[0], length as usize))
}

/// A whole frame.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&header(kind, payload.len()));
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let bytes = frame(kind::STDIN, b"abc");
        assert_eq!(parse_header(&bytes), Some((kind::STDIN, 3)));
        assert_eq!(parse_header(&bytes[..4]), None);
        assert_eq!(&bytes[HEADER..], b"abc");
    }
}
