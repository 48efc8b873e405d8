//! Who is at the other end of a connection, and how a connection ends when its right does.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use identity::Caller;
use rustix::net::Shutdown;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use types::TokenId;

use super::HangUp;

/// The other end of a connection. Each request has it among its extensions.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A program on this machine that could open the socket.
    Local,
    /// Somebody on the network.
    Remote {
        address: SocketAddr,
        /// The certificate that the connection began with, DER; its signature is good.
        certificate: Option<Arc<[u8]>>,
        session: Arc<Session>,
    },
}

/// What one holder of addresses has most often: an address of IPv4, 64 bits of IPv6.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// A connection from the network, as long as it lives, also as a raw stream.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    /// Whose rights end it already.
    watched: Mutex<HashSet<TokenId>>,
    /// Dropped with the session.
    alive: watch::Sender<()>,
    /// Its place among the connections of a namespace.
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Session {
    pub(crate) fn new(socket: BorrowedFd<'_>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            socket: socket.try_clone_to_owned()?,
            watched: Mutex::default(),
            alive: watch::Sender::new(()),
            place: Mutex::default(),
        }))
    }

    /// Whether the connection has a place among `places`, or gets one.
    pub(crate) fn has_place(&self, places: &Arc<Semaphore>) -> bool {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = places.clone().try_acquire_owned().ok();
        }
        place.is_some()
    }

    /// Has the connection end when the caller's right does, whatever it is used for then.
    pub(crate) fn ends_with(&self, caller: &Caller) {
        let Some(token) = &caller.token else { return };
        let is_new = self
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(token.clone());
        let socket = match self.socket.try_clone() {
            Ok(socket) if is_new => socket,
            _ => return,
        };
        let mut alive = self.alive.subscribe();
        let (caller, token) = (caller.clone(), token.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = alive.changed() => {}
                () = caller.ended() => {
                    tracing::info!(%token, "a connection ends with the right to it");
                    let _ = rustix::net::shutdown(&socket, Shutdown::Both);
                }
            }
        });
    }
}

/// A stream that keeps its session alive.
pub(crate) struct Kept<S> {
    pub(crate) inner: S,
    pub(crate) session: Arc<Session>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Kept<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Kept<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S> HangUp for Kept<S> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.session.socket.as_fd()
    }
}
