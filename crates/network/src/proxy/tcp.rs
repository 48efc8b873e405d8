//! TCP connections: both directions are passed on until each side has closed its own. Content
//! goes from socket to socket by way of a pipe, inside the kernel.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Bytes passed on at once in each direction, and the pipe's size: memory is taken only for what
/// is under way.
const CHUNK: usize = 1024 * 1024;
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

async fn pass_on(client: TcpStream, target: SocketAddr) {
    let Ok(Ok(server)) = timeout(CONNECT, TcpStream::connect(target)).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    // Either side may break off at any time; there is nobody to tell.
    let _ = tokio::try_join!(one_way(&client, &server), one_way(&server, &client));
}

/// Passes on what one side sends, and then that it is done.
async fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // A smaller one does it as well: users have a limit of pages in pipes.
    let _ = fcntl_setpipe_size(&into, CHUNK);
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        // The pipe is empty: what would block is the socket.
        let fill = || Ok(splice(from, None, &into, None, CHUNK, flags)?);
        let mut left = from.async_io(Interest::READABLE, fill).await?;
        if left == 0 {
            return socket2::SockRef::from(to).shutdown(Shutdown::Write);
        }
        while left > 0 {
            let drain = || Ok(splice(&out, None, to, None, left, flags)?);
            match to.async_io(Interest::WRITABLE, drain).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                passed => left -= passed,
            }
        }
    }
}
