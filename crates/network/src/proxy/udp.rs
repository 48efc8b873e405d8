//! UDP: each client gets a socket of its own towards the container, for as long as
//! datagrams flow. Answers leave from the address that the client has sent to.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    sync::Arc,
    time::Duration,
};

use nix::{
    libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a silent client is remembered (docker's proxy: 90 s).
const SILENCE: Duration = Duration::from_secs(90);
/// Clients at once; more are not served until others fall silent.
const CLIENTS: usize = 4096;
const DATAGRAM: usize = 65_535;

/// A client, and the address of this machine that it sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client {
    from: SocketAddr,
    to: Option<IpAddr>,
}

/// Passes datagrams on until it is aborted.
pub(super) async fn serve(socket: UdpSocket, target: SocketAddr) {
    // Without the option answers leave from the address that the route suggests.
    let _ = match socket.local_addr() {
        Ok(SocketAddr::V6(_)) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true),
        _ => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true),
    };
    let socket = Arc::new(socket);
    let mut buffer = vec![0; DATAGRAM];
    let mut clients: HashMap<Client, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            received = receive(&socket, &mut buffer) => match received {
                Ok((length, client)) => {
                    if !clients.contains_key(&client) && clients.len() < CLIENTS
                        && let Ok(session) = open(target).await
                    {
                        let session = Arc::new(session);
                        clients.insert(client, session.clone());
                        answers.spawn(answer(socket.clone(), client, session));
                    }
                    if let Some(session) = clients.get(&client) {
                        let _ = session.send(&buffer[..length]).await;
                    }
                }
                // An ICMP error of some earlier answer.
                Err(_) => sleep(Duration::from_millis(1)).await,
            },
            Some(ended) = answers.join_next() => {
                if let Ok(client) = ended {
                    clients.remove(&client);
                }
            }
        }
    }
}

async fn open(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Passes the container's answers back until it has been silent for long; returns the client.
async fn answer(socket: Arc<UdpSocket>, client: Client, session: Arc<UdpSocket>) -> Client {
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(received) = timeout(SILENCE, session.recv(&mut buffer)).await {
        match received {
            Ok(length) => drop(send(&socket, &buffer[..length], client).await),
            // Nobody listens in the container yet; it may come.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    client
}

async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
    let mut read = || {
        let mut control = nix::cmsg_space!(in6_pktinfo, in_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let to = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
            }
            _ => None,
        });
        let from = message
            .address
            .and_then(read_address)
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok((message.bytes, Client { from, to }))
    };
    socket.async_io(Interest::READABLE, &mut read).await
}

fn read_address(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    })
}

async fn send(socket: &UdpSocket, datagram: &[u8], client: Client) -> io::Result<usize> {
    let address = SockaddrStorage::from(client.from);
    let write = |control: &[ControlMessage<'_>]| {
        let parts = [IoSlice::new(datagram)];
        Ok(sendmsg(
            socket.as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_DONTWAIT,
            Some(&address),
        )?)
    };
    socket
        .async_io(Interest::WRITABLE, || match client.to {
            Some(IpAddr::V4(v4)) => {
                let own = in_addr {
                    s_addr: v4.to_bits().to_be(),
                };
                let info = in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: own,
                    ipi_addr: in_addr { s_addr: 0 },
                };
                write(&[ControlMessage::Ipv4PacketInfo(&info)])
            }
            Some(IpAddr::V6(v6)) => {
                let info = in6_pktinfo {
                    ipi6_ifindex: 0,
                    ipi6_addr: in6_addr {
                        s6_addr: v6.octets(),
                    },
                };
                write(&[ControlMessage::Ipv6PacketInfo(&info)])
            }
            None => write(&[]),
        })
        .await
}
