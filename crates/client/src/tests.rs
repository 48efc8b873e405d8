//! Against a server that says what the test tells it to.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    task::JoinHandle,
};
use types::{Kind, native::FileKind};

use crate::{Client, Error, Host};

struct Server {
    client: Client,
    /// What was asked.
    asked: JoinHandle<String>,
    _dir: tempfile::TempDir,
}

/// Answers one call with these bytes, and hangs up.
fn server(answer: &'static str) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = socket.read(&mut buffer).await.unwrap();
            asked.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&asked);
            let chunked = text.contains("chunked");
            let ended = match text.split_once("\r\n\r\n") {
                Some((_, body)) if chunked => body.ends_with("0\r\n\r\n"),
                Some((head, body)) if head.contains("content-length") => !body.is_empty(),
                head => head.is_some(),
            };
            if count == 0 || ended {
                break;
            }
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked).into_owned()
    });
    Server {
        client: Client::new(Host::Unix(path)),
        asked,
        _dir: dir,
    }
}

#[tokio::test]
async fn an_answer_is_understood() {
    let server = server(
        "HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n{\"version\": \"9\", \"api\": \"1\", \"something new\": [1, 2, 3, 4]} ",
    );
    assert_eq!(server.client.version().await.unwrap().version, "9");
    assert!(
        server
            .asked
            .await
            .unwrap()
            .starts_with("GET /kr/v1/version HTTP/1.1\r\n")
    );
}

#[tokio::test]
async fn names_stay_one_segment() {
    let server = server("HTTP/1.1 204 No Content\r\n\r\n");
    server.client.volume_remove("a/../b?c", true).await.unwrap();
    let asked = server.asked.await.unwrap();
    assert!(
        asked.starts_with("DELETE /kr/v1/volumes/a%2F..%2Fb%3Fc?force=1 "),
        "{asked}"
    );
}

#[tokio::test]
async fn refusals_keep_their_kind() {
    let server = server(
        "HTTP/1.1 409 Conflict\r\nconnection: close\r\n\r\n{\"message\": \"in use\", \"kind\": \"conflict\"}",
    );
    let error = server.client.volume("x").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (Some(Kind::Conflict), "in use".into())
    );
}

#[tokio::test]
async fn other_servers_are_recognised() {
    for answer in [
        "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n{\"message\":\"page not found\"}\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>",
    ] {
        let error = server(answer).client.volumes().await.unwrap_err();
        assert!(matches!(error, Error::Unexpected { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_there_and_broken_off() {
    let client = Client::new(Host::Unix("/nowhere/kraud.sock".into()));
    assert!(matches!(client.version().await, Err(Error::Connect { .. })));
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let error = server(answer).client.version().await.unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn half_an_archive_is_an_error() {
    // {"name":"f","kind":"file","size":3,"mode":420,"modified":"2026-11-25T00:00:00Z"}
    let server = server(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkr-path-stat: eyJuYW1lIjoiZiIsImtpbmQiOiJmaWxlIiwic2l6ZSI6MywibW9kZSI6NDIwLCJtb2RpZmllZCI6IjIwMjYtMTEtMjVUMDA6MDA6MDBaIn0=\r\n\r\n3\r\nabc\r\n",
    );
    let mut archive = server
        .client
        .volume_archive_get("v", None, "/f")
        .await
        .unwrap();
    assert_eq!((archive.stat.kind, archive.stat.size), (FileKind::File, 3));
    let mut tar = Vec::new();
    assert!(archive.tar.read_to_end(&mut tar).await.is_err());
    assert_eq!(tar, b"abc");
}

#[tokio::test]
async fn an_upload_is_streamed() {
    let server = server("HTTP/1.1 204 No Content\r\n\r\n");
    let pieces = stream::iter([
        Ok(Bytes::from_static(b"one")),
        Ok(Bytes::from_static(b"two")),
    ]);
    server
        .client
        .volume_archive_put("v", "/d", pieces)
        .await
        .unwrap();
    let asked = server.asked.await.unwrap();
    assert!(
        asked.contains("PUT /kr/v1/volumes/v/archive?path=%2Fd "),
        "{asked}"
    );
    assert!(asked.contains("3\r\none\r\n3\r\ntwo\r\n0\r\n"), "{asked}");
}

/// A source that fails must not look like a whole archive to the server.
#[tokio::test]
async fn a_broken_upload_has_no_end() {
    let server = server("");
    let pieces = stream::iter([
        Ok(Bytes::from_static(b"one")),
        Err(std::io::Error::other("gone")),
    ]);
    let sent = server.client.volume_archive_put("v", "/d", pieces).await;
    assert!(matches!(sent, Err(Error::Broken { .. })), "{sent:?}");
    assert!(!server.asked.await.unwrap().contains("\r\n0\r\n"));
}
