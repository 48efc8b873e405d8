//! Streams between a container and whoever is attached, in a form that can cross machines.

use std::pin::Pin;

use bytes::Bytes;
use tokio::{io::AsyncRead, sync::mpsc};
use types::Time;

/// A stream of bytes, such as a tar archive.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// A piece of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// From standard output, or from the terminal.
    Stdout(Bytes),
    /// From standard error.
    Stderr(Bytes),
}

/// A message to a container's standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes to write.
    Data(Bytes),
    /// End of file: the attached client has nothing more to say.
    Close,
}

/// An attached client's two directions.
///
/// Dropping `input` without [`Input::Close`] detaches and leaves the container's standard
/// input open; `output` ends when the process has exited and everything was delivered.
#[derive(Debug)]
pub struct Attached {
    /// Whether the process has a terminal: its output is then one raw stream.
    pub tty: bool,
    /// What it prints.
    pub output: mpsc::Receiver<Output>,
    /// Where its input goes, when standard input was asked for.
    pub input: Option<mpsc::Sender<Input>>,
}

pub use runtime::logs::LogEntry;

/// Which part of a log to read.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Go on as the container prints.
    pub follow: bool,
    /// The last lines only.
    pub tail: Option<u64>,
    /// Not before.
    pub since: Option<Time>,
    /// Not after.
    pub until: Option<Time>,
    pub stdout: bool,
    pub stderr: bool,
}

/// A log being read, in batches.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the container has a terminal.
    pub tty: bool,
    /// The messages; an error ends the stream.
    pub entries: mpsc::Receiver<types::Result<Vec<LogEntry>>>,
}
