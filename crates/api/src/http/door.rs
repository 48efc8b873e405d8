//! The door to the network: TCP with TLS, and nothing without.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{
    conn::{Limits, connection},
    peer::{Kept, Peer, Session, network_of},
    socket::HangUp as _,
};

/// For those who come over the network.
const REMOTE: Limits = Limits {
    idle: Duration::from_secs(600),
    head: Duration::from_secs(30),
    headers: 64,
    buffer: 64 << 10,
};
/// How long a connection may take to agree on its keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many connections there may be at once. Each holds two descriptors, and few bytes while
/// it stands.
const CONNECTIONS: usize = 8192;
/// How many of them one address may have.
const OF_ONE_ADDRESS: usize = 2048;

/// Connections by address.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One of them.
struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// None where there are too many already.
    fn count(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let address = network_of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= OF_ONE_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Counted {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self
            .addresses
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// What a door is made of.
pub struct Door {
    pub listener: TcpListener,
    /// Connections that begin take the newest.
    pub config: watch::Receiver<Arc<ServerConfig>>,
}

/// Serves `router` behind a door until `shutdown` resolves.
pub async fn serve_tls(door: Door, router: axum::Router, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Arc::new(Addresses::default());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = places.clone().acquire_owned() => place,
        };
        tokio::select! {
            () = &mut shutdown => break,
            accepted = door.listener.accept() => match accepted {
                Ok((socket, address)) => {
                    let Some(counted) = addresses.count(address.ip()) else {
                        tracing::debug!(%address, "too many connections from one address");
                        continue;
                    };
                    let config = door.config.borrow().clone();
                    let (router, stopping) = (router.clone(), stopping.clone());
                    connections.spawn(async move {
                        let _held = (place, counted);
                        one(socket, address, config, router, stopping).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection from the network failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(door);
    let _ = stop.send(true);
    let _ = tokio::time::timeout(super::conn::GRACE, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

async fn one(
    socket: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    router: axum::Router,
    stopping: watch::Receiver<bool>,
) {
    let _ = socket.set_nodelay(true);
    keep_alive(&socket);
    let agreed = tokio::time::timeout(HANDSHAKE, async {
        if !speaks_tls(&socket).await? {
            refuse_plain(socket).await;
            return Ok(None);
        }
        TlsAcceptor::from(config).accept(socket).await.map(Some)
    })
    .await;
    let stream = match agreed {
        Ok(Ok(Some(stream))) => stream,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "a connection did not get through TLS");
            return;
        }
        Err(_) => {
            tracing::debug!(%address, "a connection took too long over TLS");
            return;
        }
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| Arc::from(certificate.as_ref()));
    let session = match Session::new(stream.socket()) {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!(%error, "a connection from the network is dropped");
            return;
        }
    };
    let peer = Peer::Remote {
        address,
        certificate,
        session: session.clone(),
    };
    let socket = Kept {
        inner: stream,
        session,
    };
    connection(socket, peer, REMOTE, router, stopping).await;
}

/// A client whose machine is gone must not hold its place for ever.
fn keep_alive(socket: &TcpStream) {
    use rustix::net::sockopt;
    let set = || -> rustix::io::Result<()> {
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, Duration::from_secs(60))?;
        sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15))?;
        sockopt::set_tcp_keepcnt(socket, 4)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "a connection is not watched for its end");
    }
}

/// Whether the first byte is that of a TLS handshake (RFC 8446, section 5.1).
async fn speaks_tls(socket: &TcpStream) -> std::io::Result<bool> {
    const HANDSHAKE: u8 = 22;
    let mut first = [0];
    let count = socket.peek(&mut first).await?;
    Ok(count == 0 || first[0] == HANDSHAKE)
}

/// Tells a client without TLS what is wrong.
async fn refuse_plain(mut socket: TcpStream) {
    const MESSAGE: &str = "{\"message\":\"Client sent an HTTP request to an HTTPS server: kraud is reached by TLS only (https://, or tcp:// with certificates)\"}\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{MESSAGE}",
        MESSAGE.len()
    );
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
    // What it has sent must be read, or the answer is lost with the connection.
    let mut rest = [0; 4096];
    let mut left = 64;
    while left > 0 {
        left -= 1;
        if socket.readable().await.is_err() {
            break;
        }
        match socket.try_read(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
}
