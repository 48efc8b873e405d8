//! Bodies that are a stream of JSON objects, each sent as soon as it is there: events,
//! progress, stats.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use types::Result;

use super::{call, wire::progress::JsonMessage};

/// The bytes of one object and its line end.
fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

/// 200 with one line per item. The client going away drops `items`.
pub fn respond<T: Serialize + 'static>(items: impl Stream<Item = T> + Send + 'static) -> Result<Response> {
    let body = Body::from_stream(items.map(|item| Ok::<_, std::convert::Infallible>(line(&item))));
    call::stream("application/json", body)
}

/// 200 with one line per item and, where an item is an error, docker's form of it as the
/// last line: the status was sent long ago.
pub fn respond_or_fail<T: Serialize + 'static>(items: impl Stream<Item = Result<T>> + Send + 'static) -> Result<Response> {
    let body = Body::from_stream(items.map(|item| {
        Ok::<_, std::convert::Infallible>(match item {
            Ok(item) => line(&item),
            Err(error) => line(&JsonMessage::error(&error.message)),
        })
    }));
    call::stream("application/json", body)
}
