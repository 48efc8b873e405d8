//! Attaching over a web socket (RFC 6455): a browser's way to a container's terminal.

use agent::{Attached, Input, Output};
use axum::{http::HeaderMap, response::Response};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};
use types::{Error, Result};

use super::{
    call::Call,
    detach::{Detector, Typed},
    frames,
};

/// Checks the client's handshake; gives the response head.
fn handshake(headers: &HeaderMap) -> Result<Vec<u8>> {
    let has = |name: &str, word: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|text| {
                text.split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(word))
            })
    };
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return Err(Error::invalid(
            "not a websocket request: want the headers Connection: Upgrade and Upgrade: websocket",
        ));
    }
    let key = headers.get("sec-websocket-key").ok_or_else(|| {
        Error::invalid("not a websocket request: the header Sec-WebSocket-Key is missing")
    })?;
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
    .into_bytes())
}

/// Fails when the client does not speak web sockets or its connection cannot be taken over.
pub(super) fn check<S>(call: &Call<S>) -> Result<()> {
    call.hijacker()?;
    handshake(&call.parts.headers).map(drop)
}

/// Takes the call's connection over and runs a session on it in a task of its own.
pub(super) fn begin<S>(
    call: &Call<S>,
    detach_keys: Vec<u8>,
    attached: Attached,
) -> Result<Response> {
    let (response, stream) = call.hijacker()?.take(handshake(&call.parts.headers)?);
    let binary = call.since(28);
    tokio::spawn(async move {
        if let Ok(stream) = stream.await {
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            run(socket, attached, detach_keys, binary).await;
        }
    });
    Ok(response)
}

async fn run(
    socket: WebSocketStream<crate::http::Hijacked>,
    attached: Attached,
    detach_keys: Vec<u8>,
    binary: bool,
) {
    let Attached {
        mut output,
        mut input,
        tty,
    } = attached;
    let mut keys = tty.then(|| Detector::new(detach_keys));
    let (mut to_client, mut from_client) = socket.split();
    let sending = async {
        while let Some(piece) = output.recv().await {
            if to_client.send(message(&piece, binary)).await.is_err() {
                return;
            }
        }
        let _ = to_client.close().await;
    };
    let receiving = async {
        while let Some(Ok(message)) = from_client.next().await {
            let typed: Bytes = match message {
                Message::Text(text) => text.into(),
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            let (data, detach) = match keys.as_mut().map(|keys| keys.feed(&typed)) {
                None => (typed, false),
                Some(Typed::Data(data)) => (Bytes::from(data), false),
                Some(Typed::Detach(data)) => (Bytes::from(data), true),
            };
            if let Some(sender) = &input
                && sender.send(Input::Data(data)).await.is_err()
            {
                input = None;
            }
            if detach {
                return;
            }
        }
        if let Some(sender) = input.take().filter(|_| !tty) {
            let _ = sender.send(Input::Close).await;
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}

/// One piece of output. Text frames (before API 1.28) must be UTF-8.
fn message(output: &Output, binary: bool) -> Message {
    let mut buffer = BytesMut::new();
    frames::put_output(&mut buffer, true, output);
    if binary {
        Message::Binary(buffer.freeze())
    } else {
        Message::Text(String::from_utf8_lossy(&buffer).into_owned().into())
    }
}
