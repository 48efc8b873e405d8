//! A client attached to a process: bytes both ways over a connection that was taken over.

use std::{future::Future, time::Duration};

use agent::{Attached, Input, Output};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
};
use types::Result;

use super::{
    call::Call,
    detach::{Detector, Typed},
    dispatch::HEADERS,
    frames,
};
use crate::http::Hijacked;

/// Output is gathered up to this many bytes for one write, where it is there at once.
const GATHER: usize = 64 << 10;
/// Input is read in pieces of up to this many bytes.
const READ: usize = 32 << 10;
/// How long a client may take to close its side after the session has ended.
const LINGER: Duration = Duration::from_secs(1);
/// How often a client that closed its sending side is checked for being gone.
const RECHECK: Duration = Duration::from_secs(1);

/// How a session is carried.
#[derive(Debug)]
pub(super) struct Options {
    /// One stream without frames.
    pub raw: bool,
    /// Ends the session when it is typed; only terminals have it.
    pub detach_keys: Option<Vec<u8>>,
}

/// The head that docker writes before a raw stream: `101` when the client asked for an
/// upgrade, else a plain `200` behind which both sides just go on.
pub(super) fn head(upgrade: bool, content_type: &str) -> Vec<u8> {
    let mut head = if upgrade {
        format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        )
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {}\r\n", frames::RAW)
    };
    for (name, value) in HEADERS {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Takes the call's connection over and runs a session on it in a task of its own.
///
/// `attach` runs once the client has the response's head: docker-py reads the head through
/// a buffer and loses whatever output comes in the same moment. When it fails, the message
/// is all that the session says, as docker does it.
pub(super) fn begin<S>(
    call: &Call<S>,
    content_type: &str,
    options: Options,
    attach: impl Future<Output = Result<Attached>> + Send + 'static,
) -> Result<Response> {
    let upgrade = call.parts.headers.contains_key("upgrade");
    let (response, stream) = call.hijacker()?.take(head(upgrade, content_type));
    tokio::spawn(async move {
        let Ok(stream) = stream.await else { return };
        if let Ok(lookout) = stream.lookout() {
            lookout.all_read().await;
        }
        let attached = attach
            .await
            .unwrap_or_else(|error| saying(options.raw, &error.message));
        run(stream, attached, options).await;
    });
    Ok(response)
}

/// A session that says `message` and ends.
fn saying(tty: bool, message: &str) -> Attached {
    let (sender, output) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Output::Stdout(Bytes::from(format!("{message}\r\n"))));
    Attached {
        tty,
        output,
        input: None,
    }
}

/// Runs a session until the process has ended and all was delivered, the client detaches,
/// or it is gone.
pub(super) async fn run(stream: Hijacked, attached: Attached, options: Options) {
    let Attached { output, input, tty } = attached;
    let lookout = stream.lookout();
    let (read, write) = tokio::io::split(stream);
    let (leave, left) = oneshot::channel();
    let keys = options.detach_keys.filter(|_| tty).map(Detector::new);
    let mut typing = tokio::spawn(async move {
        let ended = pass_input(read, input, keys, !tty).await;
        // After its end of file the client still waits for output, unless it is gone.
        if let (InputEnd::EndOfFile, Ok(lookout)) = (ended, lookout) {
            while !lookout.peer_gone() {
                tokio::time::sleep(RECHECK).await;
            }
        }
        let _ = leave.send(());
    });
    let mut write = pass_output(write, output, options.raw, left).await;
    let _ = write.shutdown().await;
    // Closing a socket with unread input resets it, which clients report as an error.
    if tokio::time::timeout(LINGER, &mut typing).await.is_err() {
        typing.abort();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum InputEnd {
    Detached,
    EndOfFile,
    Broken,
}

async fn pass_input(
    mut read: ReadHalf<Hijacked>,
    mut input: Option<mpsc::Sender<Input>>,
    mut keys: Option<Detector>,
    close: bool,
) -> InputEnd {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        match read.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return InputEnd::Broken,
        }
        let typed = buffer.split().freeze();
        let (data, detach) = match keys.as_mut().map(|keys| keys.feed(&typed)) {
            None => (typed, false),
            Some(Typed::Data(data)) => (Bytes::from(data), false),
            Some(Typed::Detach(data)) => (Bytes::from(data), true),
        };
        let taken = match &input {
            Some(input) if !data.is_empty() => input.send(Input::Data(data)).await.is_ok(),
            _ => true,
        };
        if !taken {
            // The process no longer reads. That is no reason to end the session.
            input = None;
        }
        if detach {
            return InputEnd::Detached;
        }
    }
    if let Some(input) = input.filter(|_| close) {
        let _ = input.send(Input::Close).await;
    }
    InputEnd::EndOfFile
}

async fn pass_output(
    mut write: WriteHalf<Hijacked>,
    mut output: mpsc::Receiver<Output>,
    raw: bool,
    mut client_left: oneshot::Receiver<()>,
) -> WriteHalf<Hijacked> {
    let mut buffer = BytesMut::new();
    loop {
        let piece = tokio::select! {
            piece = output.recv() => piece,
            _ = &mut client_left => break,
        };
        let Some(piece) = piece else { break };
        frames::put_output(&mut buffer, raw, &piece);
        while buffer.len() < GATHER {
            match output.try_recv() {
                Ok(piece) => frames::put_output(&mut buffer, raw, &piece),
                Err(_) => break,
            }
        }
        if write.write_all(&buffer).await.is_err() {
            break;
        }
        buffer.clear();
    }
    write
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
