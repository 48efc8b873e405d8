//! UDP: each client gets a socket of its own towards the container, for as long as
//! datagrams flow.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a silent client is remembered (docker's proxy: 90 s).
const SILENCE: Duration = Duration::from_secs(90);
/// Clients at once; more are not served until others fall silent.
const CLIENTS: usize = 4096;
const DATAGRAM: usize = 65_535;

/// Passes datagrams on until it is aborted.
pub(super) async fn serve(socket: UdpSocket, target: SocketAddr) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; DATAGRAM];
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
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

async fn open(target: SocketAddr) -> std::io::Result<UdpSocket> {
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
async fn answer(socket: Arc<UdpSocket>, client: SocketAddr, session: Arc<UdpSocket>) -> SocketAddr {
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(received) = timeout(SILENCE, session.recv(&mut buffer)).await {
        match received {
            Ok(length) => drop(socket.send_to(&buffer[..length], client).await),
            // Nobody listens in the container yet; it may come.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    client
}
