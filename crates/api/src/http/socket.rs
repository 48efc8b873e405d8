//! The socket under an HTTP connection, between hyper and the kernel.
//!
//! It does two things that hyper does not: it tells a client that only closed its sending
//! side (and waits for the answer) from one that went away, and it can keep hyper's bytes
//! off the wire once a handler has taken the connection over.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Interval, MissedTickBehavior, interval},
};

/// How often a half-closed client is looked at again.
const RECHECK: Duration = Duration::from_millis(500);

/// A stream over a socket whose peer can be seen to be gone.
pub trait HangUp {
    /// The socket.
    fn socket(&self) -> BorrowedFd<'_>;
}

impl HangUp for UnixStream {
    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}
impl HangUp for TcpStream {
    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// True when nothing written to `socket` now can reach anybody.
pub(super) fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&now)) {
        Ok(_) => fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
        Err(_) => false,
    }
}

/// What the two sides of a connection, hyper's and the handler's, must know of each other.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// A request is being answered.
    pub(super) answering: AtomicBool,
    /// Its body was read to the end, or nobody wants it any more.
    pub(super) body_done: AtomicBool,
    /// The connection was taken over: what hyper writes is dropped.
    pub(super) muted: AtomicBool,
}

impl Flags {
    fn waits_for_answer(&self) -> bool {
        self.answering.load(Ordering::Acquire) && self.body_done.load(Ordering::Acquire)
    }
}

/// A socket with [`Flags`] between it and hyper.
pub(super) struct Socket<S> {
    inner: S,
    flags: Arc<Flags>,
    recheck: Option<Interval>,
}

impl<S> Socket<S> {
    pub(super) fn new(inner: S, flags: Arc<Flags>) -> Self {
        Self {
            inner,
            flags,
            recheck: None,
        }
    }
    pub(super) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + HangUp + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // End of file. hyper takes that for a lost client and drops the request that is
        // under way, so it must not see it while the client still waits for the answer.
        loop {
            if !self.flags.waits_for_answer() || hung_up(self.inner.socket()) {
                return Poll::Ready(Ok(()));
            }
            let timer = self.recheck.get_or_insert_with(|| {
                let mut timer = interval(RECHECK);
                timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
                timer
            });
            ready!(timer.poll_tick(cx));
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.flags.muted.load(Ordering::Acquire) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flags.muted.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.flags.muted.load(Ordering::Acquire) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
