//! One HTTP call, over a connection that is free or a new one.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    client::conn::http1::SendRequest,
    header,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use types::{Kind, native};

use crate::{Client, Error, Host, Result, tls};

/// A connection of any kind.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Connections between calls. One whose answer is still read is not free yet.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Mutex<Vec<SendRequest<Body>>>>);

impl Idle {
    /// As many are kept.
    const KEPT: usize = 8;

    fn lock(&self) -> MutexGuard<'_, Vec<SendRequest<Body>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.lock();
        idle.retain(|one| !one.is_closed());
        let free = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(free))
    }

    fn keep(&self, one: SendRequest<Body>) {
        let mut idle = self.lock();
        if idle.len() < Self::KEPT {
            idle.push(one);
        }
    }
}

/// How long a socket may take to accept.
const CONNECT: Duration = Duration::from_secs(10);
/// The largest answer that is read as a whole, bytes. A list of differences can be long.
const LIMIT: usize = 1 << 30;
/// What stands in a segment of a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

type Cause = Box<dyn std::error::Error + Send + Sync>;
/// What is sent.
pub(crate) type Body = UnsyncBoxBody<Bytes, Cause>;
/// Parameters of a query.
pub(crate) type Query<'a> = [(&'a str, &'a str)];

pub(crate) fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A stream of bytes as a body.
pub(crate) fn stream(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(
        pieces.map_ok(Frame::data).map_err(Cause::from),
    ))
}

/// A segment of a path.
pub(crate) fn encoded(segment: &str) -> impl std::fmt::Display {
    utf8_percent_encode(segment, PLAIN)
}

/// The path and query of a call.
fn target(segments: &[&str], query: &Query<'_>) -> String {
    let mut target = "/kr/v1".to_owned();
    for segment in segments {
        target.push('/');
        target.extend(utf8_percent_encode(segment, PLAIN));
    }
    if !query.is_empty() {
        target.push('?');
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        target.push_str(&pairs.extend_pairs(query).finish());
    }
    target
}

impl Client {
    /// `GET` with JSON as the answer.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &Query<'_>,
    ) -> Result<T> {
        self.read(self.send(Method::GET, segments, query, None).await?)
            .await
    }

    /// `POST` of JSON with JSON as the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        self.give(Method::POST, segments, body).await
    }

    /// `PUT` of JSON with JSON as the answer.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        self.give(Method::PUT, segments, body).await
    }

    async fn give<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|error| {
            self.unexpected(method.as_str(), format!("encoding the request: {error}"))
        })?;
        let body = Full::from(body)
            .map_err(|never| match never {})
            .boxed_unsync();
        let answer = self
            .send(method, segments, &[], Some(("application/json", body)))
            .await?;
        self.read(answer).await
    }

    /// `DELETE`, which answers nothing.
    pub(crate) async fn delete(&self, segments: &[&str], query: &Query<'_>) -> Result<()> {
        self.send(Method::DELETE, segments, query, None)
            .await
            .map(drop)
    }

    /// Any call; the answer is one of success.
    pub(crate) async fn send(
        &self,
        method: Method,
        segments: &[&str],
        query: &Query<'_>,
        body: Option<(&str, Body)>,
    ) -> Result<Answer> {
        let target = target(segments, query);
        let call = format!("{method} {}", target.split('?').next().unwrap_or_default());
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.host().authority())
            .header(
                header::USER_AGENT,
                concat!("kra/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(token) = &self.token {
            let mut value = header::HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| self.unexpected(&call, "the token is none".into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some((kind, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *kind);
        }
        let request = request
            .body(body.map_or_else(nothing, |(_, body)| body))
            .map_err(|error| self.unexpected(&call, error.to_string()))?;
        let response = self.exchange(&call, request).await?;
        if response.status().is_success() {
            return Ok(Answer { call, response });
        }
        Err(self.refusal(&call, response).await)
    }

    pub(crate) async fn exchange(
        &self,
        call: &str,
        request: Request<Body>,
    ) -> Result<Response<Incoming>> {
        let mut request = request;
        while let Some(mut kept) = self.idle.take() {
            match kept.try_send_request(request).await {
                Ok(response) => {
                    self.idle.keep(kept);
                    return Ok(response);
                }
                // The server had closed it, and nothing was sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.broken(call, error.into_error().into())),
                },
            }
        }
        let connect = |source| Error::Connect {
            host: self.host().clone(),
            source,
        };
        let socket = tokio::time::timeout(CONNECT, self.connect())
            .await
            .map_err(|_| connect(io::ErrorKind::TimedOut.into()))?
            .map_err(connect)?;
        let broken = |source: hyper::Error| self.broken(call, source.into());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(broken)?;
        // Ends with the last of the request and the answer.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        self.idle.keep(sender);
        Ok(response)
    }

    /// Opens a connection.
    async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        match self.host() {
            Host::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Host::Https { name, port } => {
                let config = self
                    .tls
                    .clone()
                    .ok_or_else(|| io::Error::other("there is nothing to know the server by"))?;
                let server = tls::server_name(name)?;
                let socket = TcpStream::connect((name.as_str(), *port)).await?;
                socket.set_nodelay(true)?;
                let stream = TlsConnector::from(config).connect(server, socket).await?;
                Ok(Box::new(stream))
            }
        }
    }

    /// What a failed call's answer says.
    async fn refusal(&self, call: &str, response: Response<Incoming>) -> Error {
        let status = response.status();
        let body = match Limited::new(response.into_body(), 1 << 20).collect().await {
            Ok(body) => body.to_bytes(),
            Err(source) => return self.broken(call, source),
        };
        if status == StatusCode::NOT_MODIFIED {
            return Error::Api(types::Error::not_modified("it is so already"));
        }
        match serde_json::from_slice::<native::Error>(&body) {
            Ok(error) => Error::Api(error.into()),
            // A kraud from before there was this call, or docker's own daemon.
            Err(_) => self.unexpected(
                call,
                format!(
                    "the answer is {status}: {}",
                    String::from_utf8_lossy(&body[..body.len().min(300)]).trim()
                ),
            ),
        }
    }

    /// A whole answer as JSON.
    pub(crate) async fn read<T: DeserializeOwned>(&self, answer: Answer) -> Result<T> {
        let Answer { call, response } = answer;
        let body = Limited::new(response.into_body(), LIMIT)
            .collect()
            .await
            .map_err(|source| self.broken(&call, source))?
            .to_bytes();
        serde_json::from_slice(&body).map_err(|error| {
            self.unexpected(&call, format!("the answer is not as expected: {error}"))
        })
    }

    pub(crate) fn broken(&self, call: &str, source: Cause) -> Error {
        Error::Broken {
            host: self.host().clone(),
            call: call.to_owned(),
            source,
        }
    }

    pub(crate) fn unexpected(&self, call: &str, what: String) -> Error {
        Error::Unexpected {
            host: self.host().clone(),
            call: call.to_owned(),
            what,
        }
    }
}

/// The answer to a call that succeeded, its body not read yet.
pub(crate) struct Answer {
    pub(crate) call: String,
    pub(crate) response: Response<Incoming>,
}

/// Whether an error says that the thing is not there.
pub(crate) fn or_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::Api(error)) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(target(&["volumes"], &[]), "/kr/v1/volumes");
        assert_eq!(
            target(
                &["volumes", "a/../b c", "diff"],
                &[("from", "x&y"), ("to", "ü")]
            ),
            "/kr/v1/volumes/a%2F..%2Fb%20c/diff?from=x%26y&to=%C3%BC"
        );
    }
}
