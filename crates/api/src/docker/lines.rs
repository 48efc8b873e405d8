//! Bodies that are a stream of JSON objects, each sent as soon as it is there: events,
//! progress, stats.

use std::convert::Infallible;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinHandle};
use types::Result;

use super::{call, wire::progress::JsonMessage};

/// The bytes of one object and its line end.
fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

/// 200 with one line per item. The client going away drops `items`.
pub(super) fn respond<T: Serialize + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
) -> Result<Response> {
    let body = Body::from_stream(items.map(|item| Ok::<_, Infallible>(line(&item))));
    call::stream("application/json", body)
}

/// Aborts a task when the client that it works for goes away.
struct Aborts(JoinHandle<()>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The messages of a transfer that `task` makes. A failure before the first message is an
/// ordinary failed call; a later one is the last line, since the status was sent long ago.
/// The client going away aborts the task.
pub(super) async fn respond_to_task(
    mut messages: mpsc::Receiver<Result<JsonMessage>>,
    task: JoinHandle<()>,
) -> Result<Response> {
    respond_to_messages(
        stream::poll_fn(move |context| messages.poll_recv(context)),
        task,
    )
    .await
}

/// The same for a task whose messages must never make it wait.
pub(super) async fn respond_to_transfer(
    mut messages: mpsc::UnboundedReceiver<Result<JsonMessage>>,
    task: JoinHandle<()>,
) -> Result<Response> {
    respond_to_messages(
        stream::poll_fn(move |context| messages.poll_recv(context)),
        task,
    )
    .await
}

async fn respond_to_messages(
    mut messages: impl Stream<Item = Result<JsonMessage>> + Send + Unpin + 'static,
    task: JoinHandle<()>,
) -> Result<Response> {
    let task = Aborts(task);
    let first = messages.next().await.transpose()?;
    let rest = stream::unfold((messages, task), |(mut messages, task)| async move {
        let message = messages.next().await?;
        let message = message.unwrap_or_else(|error| JsonMessage::error(&error.message));
        Some((message, (messages, task)))
    });
    respond(stream::iter(first).chain(rest))
}
