//! Connections that stop being HTTP: a handler takes the socket over and speaks raw bytes
//! both ways (docker's attach and exec, web sockets).
//!
//! hyper only lets go of a connection after `101` to a request that asked for an upgrade.
//! Docker's older clients ask for nothing and read the raw stream behind a `200` without
//! length. So a handler takes the connection over itself: it gives the exact bytes of its
//! response head, hyper's own response is kept off the wire, and when hyper is done the
//! socket is handed over together with whatever hyper had already read of it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    task::{Context, Poll},
};

use axum::{body::Body, http::header, response::Response};
use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::socket::{Flags, HangUp, hung_up};

/// A byte stream over a socket.
pub trait Duplex: AsyncRead + AsyncWrite + HangUp + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + HangUp + Unpin + Send> Duplex for T {}

/// A connection that was taken over.
pub struct Hijacked {
    /// Bytes that came right behind the request.
    ahead: Bytes,
    inner: Box<dyn Duplex>,
}

impl Hijacked {
    pub(super) fn new(inner: Box<dyn Duplex>, ahead: Bytes) -> Self {
        Self { ahead, inner }
    }
}
impl Hijacked {
    /// A way to see that the peer is gone while both directions are in use elsewhere.
    pub fn lookout(&self) -> io::Result<Lookout> {
        Ok(Lookout(self.inner.socket().try_clone_to_owned()?))
    }
}

/// How often and how far apart it is asked whether the peer has read everything.
const READ_CHECKS: u32 = 50;
const READ_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// Bytes that were written to a socket and that the peer has not read; 0 when unknown.
/// Source: unix(7), SIOCOUTQ, which is the number of TIOCOUTQ.
#[expect(
    unsafe_code,
    reason = "no crate in the tree has a safe call for this request"
)]
fn unread(socket: BorrowedFd<'_>) -> i32 {
    const TIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: the request stores one int and nothing else.
    let request = unsafe { rustix::ioctl::Getter::<TIOCOUTQ, i32>::new() };
    // SAFETY: every file answers it, with an error at worst.
    unsafe { rustix::ioctl::ioctl(socket, request) }.unwrap_or(0)
}

/// Sees whether the peer of a [`Hijacked`] connection is gone.
pub struct Lookout(OwnedFd);

impl Lookout {
    /// True when nothing written now can reach anybody; a peer that only closed its sending
    /// side is still there.
    pub fn peer_gone(&self) -> bool {
        hung_up(self.0.as_fd())
    }

    /// Waits until the peer has read all that was written, but not for long: one that is
    /// slow to read is no reason not to go on.
    pub async fn all_read(&self) {
        for _ in 0..READ_CHECKS {
            if unread(self.0.as_fd()) == 0 {
                return;
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }
}

impl AsyncRead for Hijacked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}
impl AsyncWrite for Hijacked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A takeover that waits for hyper to finish with the connection.
pub(super) struct Pending {
    pub(super) head: Vec<u8>,
    pub(super) to: oneshot::Sender<Hijacked>,
}

/// The right to take a request's connection over; in the extensions of every request that
/// came over a real connection.
#[derive(Clone)]
pub struct Hijacker {
    pub(super) flags: Arc<Flags>,
    pub(super) pending: Arc<Mutex<Option<Pending>>>,
}

impl Hijacker {
    pub(super) fn new() -> Self {
        Self {
            flags: Arc::default(),
            pending: Arc::default(),
        }
    }

    /// Takes the connection over. `head` is the whole response head as it goes over the
    /// wire. The handler must return the response it gets here; the receiver gives the
    /// stream a moment later, or fails when the client went away meanwhile.
    pub fn take(&self, head: Vec<u8>) -> (Response, oneshot::Receiver<Hijacked>) {
        let (to, stream) = oneshot::channel();
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(Pending { head, to });
        self.flags.muted.store(true, Ordering::Release);
        let mut placeholder = Response::new(Body::empty());
        // Makes hyper finish with the connection after this response.
        placeholder.headers_mut().insert(
            header::CONNECTION,
            header::HeaderValue::from_static("close"),
        );
        (placeholder, stream)
    }

    pub(super) fn finished(&self) -> Option<Pending> {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
