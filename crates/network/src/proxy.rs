//! The userland path of a published port: what arrives at a socket of the machine is
//! passed on to the container.
//!
//! It serves loopback addresses and address families that the container lacks; all other
//! traffic is translated by the kernel and never gets here.

mod tcp;
mod udp;

use std::{io, net::SocketAddr};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{runtime::Handle, task::JoinHandle};
use types::port::Protocol;

/// A bound socket: as long as it lives nobody else gets the port.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
    /// Not bound at all: this kernel may lack the protocol, and nothing is passed on.
    Sctp,
}

impl Bound {
    /// Takes the port.
    pub(crate) fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<Self> {
        let kind = match protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
            Protocol::Sctp => return Ok(Self::Sctp),
        };
        let socket = Socket::new(
            Domain::for_address(address),
            kind.nonblocking().cloexec(),
            None,
        )?;
        if address.is_ipv6() {
            // 0.0.0.0 and [::] are published apart.
            socket.set_only_v6(true)?;
        }
        if protocol == Protocol::Tcp {
            // Closed connections of a former container must not hold the port for a minute.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        if protocol == Protocol::Tcp {
            socket.listen(1024)?;
            Ok(Self::Tcp(socket.into()))
        } else {
            Ok(Self::Udp(socket.into()))
        }
    }

    /// Starts passing on to `target`; it ends, with all connections, when the guard goes.
    pub(crate) fn serve(self, runtime: &Handle, target: Option<SocketAddr>) -> io::Result<Guard> {
        let _entered = runtime.enter();
        let task = match (self, target) {
            (Self::Tcp(listener), Some(target)) => Some(runtime.spawn(tcp::serve(
                tokio::net::TcpListener::from_std(listener)?,
                target,
            ))),
            (Self::Udp(socket), Some(target)) => {
                Some(runtime.spawn(udp::serve(tokio::net::UdpSocket::from_std(socket)?, target)))
            }
            (Self::Sctp, _) | (_, None) => None,
        };
        Ok(Guard(task))
    }
}

/// Keeps one userland path alive.
#[derive(Debug)]
pub(crate) struct Guard(Option<JoinHandle<()>>);

impl Guard {
    /// Ends the path and waits until its socket is closed, so that the port is free again.
    pub(crate) async fn close(mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
