//! Questions that others have to answer.
//!
//! Packets are passed on as they are but for their number, so that whatever client and server
//! agree on (sizes, DNSSEC) stays between them; a truncated answer makes the client come again
//! over TCP, and then the server is asked over TCP. Servers are asked one after the other.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::fs::{Mode, OFlags};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::oneshot,
    time::timeout,
};

use super::answer::question;
use crate::netns::enter;

/// How many servers are asked, as in docker.
const SERVERS: usize = 3;
/// How long a server is waited for: the clients' own patience ends after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long one is waited for that has others behind it.
const SHORT_PATIENCE: Duration = Duration::from_millis(1500);

/// Who to ask, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) address: IpAddr,
    /// From the machine's own network and not the container's.
    pub(super) from_host: bool,
}

/// Opens sockets in namespaces, on a thread that goes from one to the other.
#[derive(Debug, Clone)]
pub(super) struct Opener(mpsc::Sender<Order>);

struct Order {
    namespace: PathBuf,
    kind: Type,
    address: SocketAddr,
    answer: oneshot::Sender<io::Result<Socket>>,
}

impl Opener {
    pub(super) fn start() -> io::Result<Self> {
        let (sender, orders) = mpsc::channel::<Order>();
        let open =
            |path: &str| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let work = move || {
            let Ok(home) = open("/proc/thread-self/ns/net") else {
                return;
            };
            for order in orders {
                let opened = || {
                    enter(rustix::fs::open(
                        &order.namespace,
                        OFlags::RDONLY | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?)
                    .map_err(io::Error::other)?;
                    socket(order.kind, &order.address)
                };
                // Nobody waits any more when the container is gone.
                let _ = order.answer.send(opened());
                // Whoever stays in a namespace keeps it alive.
                if enter(&home).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("dns-sockets".into())
            .spawn(work)?;
        Ok(Self(sender))
    }

    async fn open(
        &self,
        namespace: Option<PathBuf>,
        kind: Type,
        address: SocketAddr,
    ) -> io::Result<Socket> {
        let Some(namespace) = namespace else {
            return socket(kind, &address);
        };
        let (answer, opened) = oneshot::channel();
        let order = Order {
            namespace,
            kind,
            address,
            answer,
        };
        self.0.send(order).map_err(io::Error::other)?;
        opened.await.map_err(io::Error::other)?
    }
}

fn socket(kind: Type, address: &SocketAddr) -> io::Result<Socket> {
    let protocol = if kind == Type::DGRAM {
        Protocol::UDP
    } else {
        Protocol::TCP
    };
    let socket = Socket::new(Domain::for_address(*address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if kind == Type::DGRAM {
        socket.connect(&(*address).into())?;
    }
    Ok(socket)
}

/// Asks one server after the other until one knows. None when all fail.
pub(super) async fn ask(
    opener: &Opener,
    namespace: PathBuf,
    servers: &[Server],
    packet: &[u8],
    udp: bool,
) -> Option<Vec<u8>> {
    let mut last = None;
    let servers = &servers[..servers.len().min(SERVERS)];
    for (number, server) in servers.iter().enumerate() {
        let patience = if number + 1 < servers.len() {
            SHORT_PATIENCE
        } else {
            PATIENCE
        };
        let from = (!server.from_host).then(|| namespace.clone());
        let asked = ask_one(opener, from, server.address, packet, udp);
        match timeout(patience, asked).await {
            Ok(Ok(answer)) if is_final(&answer) => return Some(answer),
            Ok(Ok(answer)) => last = Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(server = %server.address, %error, "a name server failed")
            }
            Err(_) => tracing::debug!(server = %server.address, "a name server is silent"),
        }
    }
    last
}

/// Whether no other server would know better: there is an answer, or there is no such name.
fn is_final(answer: &[u8]) -> bool {
    matches!(answer.get(3).map(|code| code & 0xf), Some(0 | 3))
}

async fn ask_one(
    opener: &Opener,
    namespace: Option<PathBuf>,
    server: IpAddr,
    packet: &[u8],
    udp: bool,
) -> io::Result<Vec<u8>> {
    let address = SocketAddr::new(server, 53);
    let kind = if udp { Type::DGRAM } else { Type::STREAM };
    let socket = opener.open(namespace, kind, address).await?;
    let number: [u8; 2] = rand::random();
    let mut ours = packet.to_vec();
    ours[..2].copy_from_slice(&number);
    let mut answer = if udp {
        let socket = UdpSocket::from_std(socket.into())?;
        socket.send(&ours).await?;
        loop {
            let heard = hear(&socket).await?;
            if belongs(&heard, &ours) {
                break heard;
            }
        }
    } else {
        let socket = TcpSocket::from_std_stream(socket.into());
        let mut stream = socket.connect(address).await?;
        write_framed(&mut stream, &ours).await?;
        let heard = read_framed(&mut stream).await?;
        if !belongs(&heard, &ours) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        heard
    };
    answer[..2].copy_from_slice(&packet[..2]);
    Ok(answer)
}

/// One datagram; memory for it is taken only when it is there.
async fn hear(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    loop {
        // A port that nobody listens on is told as an error, and only as that.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            let taken = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = socket.try_io(Interest::ERROR, taken);
        }
        let mut buffer = vec![0; usize::from(u16::MAX)];
        match socket.try_recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                buffer.shrink_to_fit();
                return Ok(buffer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a packet is an answer to this question.
fn belongs(answer: &[u8], asked: &[u8]) -> bool {
    let header = answer.len() >= 12 && answer[..2] == asked[..2] && answer[2] & 0x80 != 0;
    let same = match (question(answer), question(asked)) {
        (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
        // Some servers leave the question out when they refuse.
        (None, _) => answer.get(3).is_some_and(|code| code & 0xf != 0),
        (Some(_), None) => false,
    };
    header && same
}

/// Reads one message with its length before it.
pub(super) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

/// Writes one message with its length before it.
pub(super) async fn write_framed(stream: &mut TcpStream, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    stream.write_all(&framed).await
}
