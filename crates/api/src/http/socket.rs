//! The socket under an HTTP connection, between hyper and the kernel.
//!
//! It does two things that hyper does not: it tells a client that only closed its sending
//! side (and waits for the answer) from one that went away, and it can keep hyper's bytes
//! off the wire once a handler has taken the connection over.

use std::{
    future::Future as _,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep},
};

/// How often a half-closed client is looked at again.
const RECHECK: Duration = Duration::from_millis(100);

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
impl<S: HangUp> HangUp for tokio_rustls::server::TlsStream<S> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.get_ref().0.socket()
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
    /// Counts requests whose heads have come.
    pub(super) requests: AtomicUsize,
    /// The handler waits for more of the request's body.
    pub(super) body_wanted: AtomicBool,
    /// Counts pieces of bodies that handlers were given.
    pub(super) pieces: AtomicUsize,
    /// The connection was taken over: what hyper writes is dropped.
    pub(super) muted: AtomicBool,
}

/// A socket with [`Flags`] between it and hyper.
pub(super) struct Socket<S> {
    inner: S,
    flags: Arc<Flags>,
    after_end: Option<AfterEnd>,
    head: Duration,
    /// When the head that has begun must have ended. hyper's own limit does not tell a client
    /// that dawdles from one that has nothing to ask.
    late: Option<Pin<Box<Sleep>>>,
    /// How many requests there had been when it began.
    seen: usize,
}

/// What is kept in mind of a client that has closed its sending side.
struct AfterEnd {
    timer: Interval,
    /// How many pieces there were when the handler was last seen waiting for one.
    starved_at: Option<usize>,
}

impl AfterEnd {
    fn new() -> Self {
        let mut timer = interval_at(Instant::now() + RECHECK, RECHECK);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            timer,
            starved_at: None,
        }
    }

    /// Whether the handler waits for a body that will not come: seen twice in a row, since
    /// the last piece may be on its way to the handler.
    fn starves(&mut self, flags: &Flags) -> bool {
        let wanted = flags.body_wanted.load(Ordering::Acquire);
        let now = wanted.then(|| flags.pieces.load(Ordering::Acquire));
        let starves = now.is_some() && now == self.starved_at;
        self.starved_at = now;
        starves
    }
}

impl<S> Socket<S> {
    /// `head` is how long a request's head may take from its first byte.
    pub(super) fn new(inner: S, flags: Arc<Flags>, head: Duration) -> Self {
        Self {
            inner,
            flags,
            after_end: None,
            head,
            late: None,
            seen: 0,
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
        let requests = self.flags.requests.load(Ordering::Acquire);
        if self.seen != requests {
            // That head has come to its end.
            self.seen = requests;
            self.late = None;
        }
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Some(late) = &mut self.late
            && late.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(polled)?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            if self.late.is_none() && !self.flags.answering.load(Ordering::Acquire) {
                self.late = Some(Box::pin(sleep(self.head)));
            }
            return Poll::Ready(Ok(()));
        }
        // End of file. hyper takes that for a lost client and drops the request that is
        // under way, so it must not see it while the client still waits for the answer;
        // unless the handler waits for the rest of the request.
        let Self {
            inner,
            flags,
            after_end,
            ..
        } = &mut *self;
        if !flags.answering.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let after_end = after_end.get_or_insert_with(AfterEnd::new);
        while !hung_up(inner.socket()) && flags.answering.load(Ordering::Acquire) {
            ready!(after_end.timer.poll_tick(cx));
            if after_end.starves(flags) {
                break;
            }
        }
        Poll::Ready(Ok(()))
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
