//! TCP connections: both directions are copied until each side has closed its own.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Bytes copied at once in each direction.
const BUFFER: usize = 64 * 1024;
/// How long a container may take to accept.
const CONNECT: Duration = Duration::from_secs(10);

/// Accepts and passes on until it is aborted; the connections end with it.
pub(super) async fn serve(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(pass_on(client, target))),
                // Out of file descriptors, most likely; others will close some.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass_on(mut client: TcpStream, target: SocketAddr) {
    let Ok(Ok(mut server)) = timeout(CONNECT, TcpStream::connect(target)).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    // Either side may break off at any time; there is nobody to tell.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
}
