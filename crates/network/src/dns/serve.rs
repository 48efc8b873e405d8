//! The sockets of one sandbox and the task that serves them.
//!
//! An idle container costs two sockets and one task that waits. What the machine knows is
//! answered at once in that task; what others have to be asked has a task for each question,
//! so that a slow server holds up nobody else. All of them end with the first.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::timeout,
};

use super::{
    Asker, Dns,
    answer::{FAILED, REFUSED, Reply, failure},
    forward::{ask, read_framed, write_framed},
    rules,
};
use crate::netns::enter;

/// Where containers ask.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Connections of one container at a time.
const CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Packets that are answered before others have their turn.
const BURST: usize = 64;
/// Larger than any question.
const QUESTION: usize = 4096;

/// Makes the sockets inside a namespace and leads port 53 to them. Changes the calling
/// thread's namespace.
pub(super) fn bind(
    namespace: &OwnedFd,
) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    enter(namespace).map_err(io::Error::other)?;
    let any = SocketAddr::from((ADDRESS, 0));
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    for socket in [&udp, &tcp] {
        socket.set_nonblocking(true)?;
        socket.bind(&any.into())?;
    }
    tcp.listen(64)?;
    let (udp, tcp): (std::net::UdpSocket, std::net::TcpListener) = (udp.into(), tcp.into());
    rules::install(ADDRESS, udp.local_addr()?.port(), tcp.local_addr()?.port())?;
    Ok((udp, tcp))
}

/// Serves a sandbox for as long as it is there.
pub(super) async fn serve(dns: Arc<Dns>, asker: Arc<Asker>, udp: UdpSocket, tcp: TcpListener) {
    dns.known(&asker).await;
    let udp = Arc::new(udp);
    let (mut questions, mut connections) = (JoinSet::new(), JoinSet::new());
    loop {
        let done = tokio::select! {
            ready = udp.readable() => {
                ready.and_then(|()| answer_all(&dns, &asker, &udp, &mut questions))
            }
            accepted = tcp.accept() => accepted.map(|(stream, _)| {
                if connections.len() < CONNECTIONS {
                    connections.spawn(converse(dns.clone(), asker.clone(), stream));
                }
            }),
            Some(_) = questions.join_next() => Ok(()),
            Some(_) = connections.join_next() => Ok(()),
        };
        if let Err(error) = done {
            tracing::debug!(id = %asker.id, %error, "a container's name service");
            // Whatever it is (no descriptors, no memory), it is not gone at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn answer_all(
    dns: &Arc<Dns>,
    asker: &Arc<Asker>,
    udp: &Arc<UdpSocket>,
    questions: &mut JoinSet<()>,
) -> io::Result<()> {
    let mut buffer = [0; QUESTION];
    for _ in 0..BURST {
        let (length, from) = match udp.try_recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let packet = &buffer[..length];
        let answer = match dns.reply(asker, packet, true) {
            Reply::Send(answer) => Some(answer),
            Reply::Ignore => None,
            Reply::Forward => match dns.slot(asker) {
                None => failure(packet, REFUSED),
                Some(slot) => {
                    let (dns, asker, udp) = (dns.clone(), asker.clone(), udp.clone());
                    let packet = packet.to_vec();
                    questions.spawn(async move {
                        if let Some(answer) = pass_on(&dns, &asker, &packet, true, slot).await {
                            let _ = udp.send_to(&answer, from).await;
                        }
                    });
                    None
                }
            },
        };
        if let Some(answer) = answer {
            // A client that does not fetch its answers asks again.
            let _ = udp.try_send_to(&answer, from);
        }
    }
    Ok(())
}

async fn pass_on(
    dns: &Dns,
    asker: &Asker,
    packet: &[u8],
    udp: bool,
    _slot: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> Option<Vec<u8>> {
    let opener = match dns.opener() {
        Ok(opener) => opener,
        Err(error) => {
            tracing::warn!(%error, "starting a thread for questions to name servers");
            return failure(packet, FAILED);
        }
    };
    let servers = dns.servers(asker).await;
    let answer = ask(&opener, asker.namespace.clone(), &servers, packet, udp).await;
    answer.or_else(|| failure(packet, FAILED))
}

/// Answers the questions that come over one connection, one after the other.
async fn converse(dns: Arc<Dns>, asker: Arc<Asker>, mut stream: TcpStream) {
    while let Ok(Ok(packet)) = timeout(SILENCE, read_framed(&mut stream)).await {
        let answer = match dns.reply(&asker, &packet, false) {
            Reply::Send(answer) => Some(answer),
            Reply::Ignore => None,
            Reply::Forward => match dns.slot(&asker) {
                None => failure(&packet, REFUSED),
                Some(slot) => pass_on(&dns, &asker, &packet, false, slot).await,
            },
        };
        let Some(answer) = answer else { return };
        if !matches!(
            timeout(SILENCE, write_framed(&mut stream, &answer)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}
