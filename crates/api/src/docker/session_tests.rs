//! Sessions over real sockets.

use std::time::Duration;

use agent::{Attached, Input, Output};
use axum::{Router, extract::Request, routing};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

use super::*;
use crate::{docker::query::Query, docker::version::ApiVersion, http::serve};

const LONG: Duration = Duration::from_secs(10);

/// The process's side of a session.
struct Process {
    output: mpsc::Sender<Output>,
    input: mpsc::Receiver<Input>,
}

/// A client attached to a process, its request's head sent.
async fn attach(tty: bool, upgrade: bool) -> (UnixStream, Process, tempfile::TempDir) {
    let (output, output_side) = mpsc::channel(16);
    let (input_side, input) = mpsc::channel(16);
    let attached = std::sync::Mutex::new(Some(Attached {
        tty,
        output: output_side,
        input: Some(input_side),
    }));
    let attached = std::sync::Arc::new(attached);
    let handler = move |request: Request| {
        let attached = attached.lock().unwrap().take().unwrap();
        async move {
            let (parts, body) = request.into_parts();
            let call = Call {
                scope: engine::Scope::default(),
                state: (),
                version: ApiVersion::MAX,
                name: String::new(),
                query: Query::default(),
                parts,
                body,
            };
            let options = Options {
                raw: tty,
                detach_keys: Some(vec![16, 17]),
            };
            begin(
                &call,
                frames::media_type(tty, true),
                options,
                std::future::ready(Ok(attached)),
            )
            .unwrap()
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let router = Router::new().route("/attach", routing::post(handler));
    tokio::spawn(serve(listener, router, std::future::pending()));
    let mut client = UnixStream::connect(&path).await.unwrap();
    let headers = if upgrade {
        "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    } else {
        ""
    };
    client
        .write_all(format!("POST /attach HTTP/1.1\r\nHost: d\r\n{headers}\r\n").as_bytes())
        .await
        .unwrap();
    (client, Process { output, input }, directory)
}

async fn read_head(client: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONG, client.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn rest(client: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(LONG, client.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

#[tokio::test]
async fn without_terminal() {
    let (mut client, mut process, _directory) = attach(false, true).await;
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    assert!(head.contains("Content-Type: application/vnd.docker.multiplexed-stream\r\n"));
    assert!(head.contains("Upgrade: tcp\r\n") && head.contains("api-version: 1.50\r\n"));
    // Detach keys mean nothing here.
    client.write_all(b"in\x10\x11").await.unwrap();
    assert_eq!(
        process.input.recv().await,
        Some(Input::Data("in\x10\x11".into()))
    );
    client.shutdown().await.unwrap();
    assert_eq!(process.input.recv().await, Some(Input::Close));
    process
        .output
        .send(Output::Stdout("o".into()))
        .await
        .unwrap();
    process
        .output
        .send(Output::Stderr("e".into()))
        .await
        .unwrap();
    drop(process.output);
    assert_eq!(
        rest(&mut client).await,
        b"\x01\0\0\0\0\0\0\x01o\x02\0\0\0\0\0\0\x01e"
    );
}

#[tokio::test]
async fn old_client_and_process_that_stops_reading() {
    let (mut client, process, _directory) = attach(false, false).await;
    let head = read_head(&mut client).await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("transfer-encoding"));
    drop(process.input);
    client.write_all(b"nobody reads this").await.unwrap();
    process
        .output
        .send(Output::Stdout("still here".into()))
        .await
        .unwrap();
    drop(process.output);
    assert_eq!(&rest(&mut client).await[8..], b"still here");
}

#[tokio::test]
async fn terminal_detaches() {
    let (mut client, mut process, _directory) = attach(true, true).await;
    let head = read_head(&mut client).await;
    assert!(head.contains("Content-Type: application/vnd.docker.raw-stream\r\n"));
    process
        .output
        .send(Output::Stdout("$ ".into()))
        .await
        .unwrap();
    let mut prompt = [0; 2];
    client.read_exact(&mut prompt).await.unwrap();
    assert_eq!(&prompt, b"$ ");
    client.write_all(b"x\x10").await.unwrap();
    assert_eq!(process.input.recv().await, Some(Input::Data("x".into())));
    client.write_all(b"\x11").await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
    // Detached, not closed: no end of file for the process.
    assert_eq!(process.input.recv().await, None);
}

#[tokio::test]
async fn client_that_goes_away_ends_a_silent_session() {
    let (mut client, process, _directory) = attach(false, true).await;
    read_head(&mut client).await;
    drop(client);
    timeout(LONG, process.output.closed())
        .await
        .expect("the session ends");
}
