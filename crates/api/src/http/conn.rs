//! Accepts connections and serves HTTP/1 on them.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt as _, net::UnixListener, sync::watch, task::JoinSet};
use tower::ServiceExt as _;

use super::{
    hijack::{Duplex, Hijacked, Hijacker},
    peer::Peer,
    socket::{Flags, Socket},
};

/// What a connection may do before it is closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long it may stand between two requests.
    pub(crate) idle: Duration,
    /// How long a request's head may take from its first byte.
    pub(crate) head: Duration,
    /// How many headers a request may have.
    pub(crate) headers: usize,
    /// How large a request's head may be, bytes.
    pub(crate) buffer: usize,
}

/// For those who can open the socket.
const LOCAL: Limits = Limits {
    idle: Duration::from_secs(300),
    head: Duration::from_secs(300),
    headers: 100,
    buffer: 400 << 10,
};
/// How long requests under way may go on after shutdown was asked for.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// Serves `router` on every connection that `listener` accepts until `shutdown` resolves;
/// then lets requests under way finish for a few seconds. Connections that were hijacked
/// live on in the tasks that took them.
pub async fn serve(
    listener: UnixListener,
    router: axum::Router,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(socket, Peer::Local, LOCAL, router.clone(), stopping.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: others will close some.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let _ = tokio::time::timeout(GRACE, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

/// Serves one connection to its end.
pub(crate) async fn connection<S: Duplex + 'static>(
    socket: S,
    peer: Peer,
    limits: Limits,
    router: axum::Router,
    stopping: watch::Receiver<bool>,
) {
    let hijacker = Hijacker::new();
    let io = TokioIo::new(Socket::new(socket, hijacker.flags.clone(), limits.head));
    let service = {
        let hijacker = hijacker.clone();
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            answer(request, router.clone(), hijacker.clone())
        })
    };
    let mut conn = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(limits.headers)
        .max_buf_size(limits.buffer)
        .serve_connection(io, service);
    if let Err(error) = run(&mut conn, stopping).await {
        tracing::debug!(%error, "connection ended");
        return;
    }
    let Some(pending) = hijacker.finished() else {
        return;
    };
    let parts = conn.into_parts();
    let mut socket = parts.io.into_inner().into_inner();
    match socket.write_all(&pending.head).await {
        Ok(()) => drop(
            pending
                .to
                .send(Hijacked::new(Box::new(socket), parts.read_buf)),
        ),
        Err(error) => tracing::debug!(%error, "client left before its stream began"),
    }
}

type BoxedAnswer = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

async fn run<S, F>(
    conn: &mut http1::Connection<TokioIo<Socket<S>>, F>,
    mut stopping: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: Duplex + 'static,
    F: hyper::service::HttpService<Incoming, ResBody = ResponseBody, Error = Infallible> + Unpin,
    F::Future: Unpin,
{
    tokio::select! {
        result = poll_fn(|cx| conn.poll_without_shutdown(cx)) => return result,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    Pin::new(&mut *conn).graceful_shutdown();
    poll_fn(|cx| conn.poll_without_shutdown(cx)).await
}

fn answer(request: Request<Incoming>, router: axum::Router, hijacker: Hijacker) -> BoxedAnswer {
    let flags = hijacker.flags.clone();
    flags.body_wanted.store(false, Ordering::Release);
    flags.answering.store(true, Ordering::Release);
    flags.requests.fetch_add(1, Ordering::AcqRel);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(hijacker);
    let body = Body::new(RequestBody {
        inner: body,
        flags: flags.clone(),
    });
    Box::pin(async move {
        let response = router.oneshot(Request::from_parts(parts, body)).await?;
        Ok(response.map(|inner| ResponseBody { inner, flags }))
    })
}

/// A request's body; notes whether its handler waits for more of it.
struct RequestBody {
    inner: Incoming,
    flags: Arc<Flags>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_ready() {
            self.flags.pieces.fetch_add(1, Ordering::AcqRel);
        }
        self.flags
            .body_wanted
            .store(polled.is_pending(), Ordering::Release);
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.flags.body_wanted.store(false, Ordering::Release);
    }
}

/// A response's body; notes when it was sent or given up.
struct ResponseBody {
    inner: Body,
    flags: Arc<Flags>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.flags.answering.store(false, Ordering::Release);
    }
}
