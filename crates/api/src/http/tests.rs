//! Connections over real sockets, driven byte by byte.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request, response::Response, routing};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{Hijacker, Peer, conn, serve};

const LONG: Duration = Duration::from_secs(10);

struct Server {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    fn start(router: Router) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, router, async {
            let _ = stopped.await;
        }));
        Self {
            _directory: directory,
            path,
            stop: Some(stop),
            task,
        }
    }
    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }
}

async fn read_to(client: &mut UnixStream, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        let count = timeout(LONG, client.read(&mut byte))
            .await
            .expect("an answer in time")
            .unwrap();
        assert_eq!(count, 1, "closed after {text:?}");
        text.push(byte[0].into());
    }
    text
}

async fn read_all(client: &mut UnixStream) -> String {
    let mut text = String::new();
    timeout(LONG, client.read_to_string(&mut text))
        .await
        .expect("the end in time")
        .unwrap();
    text
}

/// Takes the connection over and echoes it, with a last word when the client has closed.
async fn echo(request: Request) -> Response {
    let hijacker = request.extensions().get::<Hijacker>().unwrap().clone();
    let _ = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap();
    let (response, stream) =
        hijacker.take(b"HTTP/1.1 200 OK\r\nContent-Type: raw\r\n\r\n".to_vec());
    tokio::spawn(async move {
        let mut stream = stream.await.unwrap();
        let mut buffer = [0; 64];
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                count => stream.write_all(&buffer[..count]).await.unwrap(),
            }
        }
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    response
}

fn router() -> Router {
    let slow = || async {
        sleep(Duration::from_millis(700)).await;
        "slow"
    };
    let slow_body = |request: Request| async {
        // The body is not even asked for while the client closes its side.
        sleep(Duration::from_millis(300)).await;
        let body = axum::body::to_bytes(request.into_body(), 100)
            .await
            .unwrap();
        sleep(Duration::from_millis(300)).await;
        body
    };
    Router::new()
        .route("/quick", routing::get(|| async { "quick" }))
        .route("/slow", routing::get(slow))
        .route("/slow-body", routing::post(slow_body))
        .route("/body", routing::post(|body: String| async { body }))
        .route("/hijack", routing::post(echo))
}

#[tokio::test]
async fn keep_alive_then_hijack_without_upgrade() {
    let server = Server::start(router());
    let mut client = server.connect().await;
    for _ in 0..2 {
        client
            .write_all(b"GET /quick HTTP/1.1\r\nHost: d\r\n\r\n")
            .await
            .unwrap();
        assert!(
            read_to(&mut client, "quick")
                .await
                .starts_with("HTTP/1.1 200 OK\r\n")
        );
    }
    // What follows the body belongs to the stream already.
    client
        .write_all(b"POST /hijack HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}early ")
        .await
        .unwrap();
    assert_eq!(
        read_to(&mut client, "early ").await,
        "HTTP/1.1 200 OK\r\nContent-Type: raw\r\n\r\nearly "
    );
    client.write_all(b"later").await.unwrap();
    assert_eq!(read_to(&mut client, "later").await, "later");
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, "bye");
}

#[tokio::test]
async fn hijack_with_upgrade_and_at_once_closed_input() {
    let server = Server::start(router());
    let mut client = server.connect().await;
    let request =
        b"POST /hijack HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nall";
    client.write_all(request).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(read_all(&mut client).await.ends_with("\r\n\r\nallbye"));
}

#[tokio::test]
async fn half_closed_client_gets_its_answer() {
    let server = Server::start(router());
    let mut client = server.connect().await;
    client
        .write_all(b"GET /slow HTTP/1.1\r\nHost: d\r\n\r\n")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let text = read_all(&mut client).await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("slow"),
        "{text:?}"
    );
}

#[tokio::test]
async fn half_closed_client_with_a_body_gets_its_answer() {
    let server = Server::start(router());
    for pause in [0, 50] {
        let mut client = server.connect().await;
        client
            .write_all(b"POST /slow-body HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\n")
            .await
            .unwrap();
        sleep(Duration::from_millis(pause)).await;
        client.write_all(b"whole").await.unwrap();
        client.shutdown().await.unwrap();
        let text = read_all(&mut client).await;
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("whole"),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn half_a_body_is_an_error() {
    let server = Server::start(router());
    let mut client = server.connect().await;
    client
        .write_all(b"POST /body HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    assert!(!read_all(&mut client).await.contains(" 200 "));
}

#[tokio::test]
async fn leaving_cancels_the_request() {
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = dropped.clone();
    let handler = move || {
        let counts = Counts(counter.clone());
        async move {
            let _counts = counts;
            std::future::pending::<&'static str>().await
        }
    };
    let server = Server::start(Router::new().route("/", routing::get(handler)));
    for half_close_first in [false, true] {
        let mut client = server.connect().await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
            .await
            .unwrap();
        sleep(Duration::from_millis(100)).await;
        if half_close_first {
            client.shutdown().await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        let before = dropped.load(Ordering::SeqCst);
        drop(client);
        let left = async {
            while dropped.load(Ordering::SeqCst) == before {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, left).await.expect("the handler is dropped");
    }
}

#[tokio::test]
async fn shutdown_lets_a_request_finish() {
    let mut server = Server::start(router());
    let mut client = server.connect().await;
    let idle = server.connect().await;
    client
        .write_all(b"GET /slow HTTP/1.1\r\nHost: d\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(100)).await;
    server.stop.take().unwrap().send(()).unwrap();
    assert!(read_all(&mut client).await.ends_with("slow"));
    timeout(LONG, &mut server.task).await.unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn who_dawdles_over_a_head_is_cut_off_and_who_is_idle_is_not() {
    let limits = conn::Limits {
        idle: LONG,
        head: Duration::from_millis(300),
        headers: 64,
        buffer: 64 << 10,
    };
    let router = Router::new().route("/", routing::get(|| async { "here" }));
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    let start = || {
        let (client, server) = UnixStream::pair().unwrap();
        tokio::spawn(conn::connection(
            server,
            Peer::Local,
            limits,
            router.clone(),
            stopping.clone(),
        ));
        client
    };
    // One byte after the other, and one that stops in the middle.
    let (mut slow, mut stuck, mut idle) = (start(), start(), start());
    stuck.write_all(b"GET / HT").await.unwrap();
    for _ in 0..3 {
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        read_to(&mut idle, "here").await;
        sleep(Duration::from_millis(200)).await;
    }
    let dawdling = async {
        while slow.write_all(b"G").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, dawdling).await.expect("it is cut off");
    let mut rest = Vec::new();
    timeout(LONG, stuck.read_to_end(&mut rest))
        .await
        .expect("it is cut off")
        .ok();
    sleep(Duration::from_millis(500)).await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut idle, "here").await;
}
