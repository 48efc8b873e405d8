//! The daemon's side of a shim's socket.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use shim::proto::{self, Exit, Started, files, hello, kind};
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::codec::{Decoder, FramedRead};
use types::{ContainerId, ExecId};

use crate::{
    Runtime,
    control::ExitInfo,
    error::{Error, Result},
    paths,
};

/// Which streams of a process to attach to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A connection to a process's streams. Dropping it detaches and harms nothing.
#[derive(Debug)]
pub struct Attachment {
    /// What the process prints, then its exit; ends early when the shim is lost.
    pub output: Output,
    /// The way in.
    pub input: Input,
}

/// A message from a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Of standard output or the terminal.
    Stdout(Bytes),
    /// Of standard error.
    Stderr(Bytes),
    /// It ended, and all its output was sent.
    Exit(ExitInfo),
}

/// The stream of [`Frame`]s.
#[derive(Debug)]
pub struct Output(FramedRead<OwnedReadHalf, FrameCodec>);

impl Stream for Output {
    type Item = Frame;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        loop {
            let frame = match std::task::ready!(self.0.poll_next_unpin(context)) {
                Some(Ok(Message::Output(frame))) => Some(frame),
                Some(Ok(_)) => continue,
                // A broken connection is the end: `Runtime::wait` tells what became of it.
                Some(Err(_)) | None => None,
            };
            return Poll::Ready(frame);
        }
    }
}

/// The way into a process: standard input and the terminal's size. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Input(Arc<tokio::sync::Mutex<OwnedWriteHalf>>);

impl Input {
    /// Writes to standard input; waits as long as the process does not read.
    pub async fn write(&self, data: Bytes) -> io::Result<()> {
        let mut half = self.0.lock().await;
        for piece in data.chunks(proto::MAX_PAYLOAD / 4) {
            let header = proto::header(kind::STDIN, piece.len());
            let mut frame = header.as_slice().chain(piece);
            while frame.has_remaining() {
                if half.write_buf(&mut frame).await? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
        }
        Ok(())
    }
    /// Ends standard input, where the process was started with `stdin_once`.
    pub async fn close(&self) -> io::Result<()> {
        self.send(kind::STDIN_CLOSE, &[]).await
    }
    /// Sets the terminal's size in characters.
    pub async fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        let ([a, b], [c, d]) = (width.to_le_bytes(), height.to_le_bytes());
        self.send(kind::RESIZE, &[a, b, c, d]).await
    }
    async fn send(&self, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.0
            .lock()
            .await
            .write_all(&proto::frame(kind, payload))
            .await
    }
}

/// Processes whose start is under way: an attach to them waits for the socket.
#[derive(Debug, Default)]
pub(crate) struct Starting(Mutex<HashSet<PathBuf>>);

/// Ends a start that is under way, however it ended.
pub(crate) struct StartingGuard<'a>(&'a Starting, PathBuf);

impl Starting {
    pub(crate) fn begin(&self, directory: &Path) -> StartingGuard<'_> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(directory.to_owned());
        StartingGuard(self, directory.to_owned())
    }
    fn contains(&self, directory: &Path) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(directory)
    }
}
impl Drop for StartingGuard<'_> {
    fn drop(&mut self) {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
    }
}

impl Runtime {
    /// Attaches to a container's first process, also while its start is under way.
    pub async fn attach(&self, id: &ContainerId, options: AttachOptions) -> Result<Attachment> {
        let connection = self.connect(&self.paths().container(id), options).await?;
        connection
            .map(|(_, attachment)| attachment)
            .ok_or_else(|| Error::NotRunning(id.to_string()))
    }

    /// Attaches to an exec session.
    pub async fn exec_attach(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        options: AttachOptions,
    ) -> Result<Attachment> {
        let connection = self.connect(&self.paths().exec(id, exec), options).await?;
        connection
            .map(|(_, attachment)| attachment)
            .ok_or_else(|| Error::NotRunning(exec.to_string()))
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, id: &ContainerId, width: u16, height: u16) -> Result<()> {
        self.resize_in(&self.paths().container(id), id.as_str(), width, height)
            .await
    }

    /// Sets the size of an exec session's terminal.
    pub async fn exec_resize(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        width: u16,
        height: u16,
    ) -> Result<()> {
        self.resize_in(&self.paths().exec(id, exec), exec.as_str(), width, height)
            .await
    }

    async fn resize_in(&self, directory: &Path, name: &str, width: u16, height: u16) -> Result<()> {
        let connection = self.connect(directory, AttachOptions::default()).await?;
        let (_, attachment) = connection.ok_or_else(|| Error::NotRunning(name.to_owned()))?;
        attachment
            .input
            .resize(width, height)
            .await
            .map_err(Error::io(format!("resize the terminal of {name}")))
    }

    /// Connects to the shim that works in `directory` and waits for its welcome; `None` when
    /// there is no shim.
    pub(crate) async fn connect(
        &self,
        directory: &Path,
        options: AttachOptions,
    ) -> Result<Option<(Started, Attachment)>> {
        let stream = loop {
            // Looked at before the attempt: a start that ends in between has left a socket.
            let starting = self.starting().contains(directory);
            match open(directory).await {
                Ok(stream) => break stream,
                Err(error) if is_absent(&error) && starting => {
                    tokio::time::sleep(Duration::from_millis(1)).await
                }
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => {
                    return Err(Error::io(format!("connect to {}", directory.display()))(
                        error,
                    ));
                }
            }
        };
        let (read, mut write) = stream.into_split();
        let mut output = FramedRead::with_capacity(read, FrameCodec, 64 * 1024);
        if write
            .write_all(&proto::frame(kind::HELLO, &[flags(options)]))
            .await
            .is_err()
        {
            return Ok(None);
        }
        match output.next().await {
            Some(Ok(Message::Welcome(started))) => {
                let input = Input(Arc::new(tokio::sync::Mutex::new(write)));
                Ok(Some((
                    started,
                    Attachment {
                        output: Output(output),
                        input,
                    },
                )))
            }
            // The shim went away while we came.
            _ => Ok(None),
        }
    }
}

async fn open(directory: &Path) -> io::Result<UnixStream> {
    let handle = paths::open_directory(directory)?;
    UnixStream::connect(paths::short(&handle, files::SOCKET)).await
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

fn flags(options: AttachOptions) -> u8 {
    let wanted = [
        (options.stdin, hello::STDIN),
        (options.stdout, hello::STDOUT),
        (options.stderr, hello::STDERR),
    ];
    wanted
        .into_iter()
        .filter_map(|(wanted, flag)| wanted.then_some(flag))
        .sum()
}

/// A frame as it is on the wire.
#[derive(Debug)]
enum Message {
    Welcome(Started),
    Output(Frame),
    /// Nothing for a reader.
    Other,
}

#[derive(Debug)]
struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Message;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Message>> {
        let Some((kind, length)) = proto::parse_header(buffer) else {
            return Ok(None);
        };
        if length > proto::MAX_PAYLOAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame of the shim is too long",
            ));
        }
        if buffer.len() < proto::HEADER + length {
            buffer.reserve(proto::HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(proto::HEADER);
        let payload = buffer.split_to(length).freeze();
        Ok(Some(match kind {
            kind::WELCOME => Message::Welcome(serde_json::from_slice(&payload)?),
            kind::STDOUT => Message::Output(Frame::Stdout(payload)),
            kind::STDERR => Message::Output(Frame::Stderr(payload)),
            kind::EXIT => Message::Output(Frame::Exit(
                serde_json::from_slice::<Exit>(&payload)?.into(),
            )),
            _ => Message::Other,
        }))
    }
}
