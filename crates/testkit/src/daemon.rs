//! A kraud of a test's own: data, socket and log in a temporary directory that goes away with it.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{leaks::Leaks, wait_until};

const READY: Duration = Duration::from_secs(15);
const STOPPED: Duration = Duration::from_secs(20);

/// A running daemon. Dropped, it is stopped together with its containers.
#[derive(Debug)]
pub struct Daemon {
    directory: TempDir,
    binary: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// The daemon's binary: `KRAUD_BIN`, or `kraud` beside the running test's own target directory.
    #[must_use]
    pub fn binary() -> Option<PathBuf> {
        if let Some(path) = std::env::var_os("KRAUD_BIN") {
            return Some(path.into());
        }
        // target/debug/deps/test-hash -> target/debug/kraud
        let test = std::env::current_exe().ok()?;
        test.ancestors()
            .skip(1)
            .take(2)
            .map(|place| place.join("kraud"))
            .find(|path| path.is_file())
    }

    /// Starts one and waits until it answers.
    pub fn start() -> io::Result<Self> {
        let binary = Self::binary().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no kraud binary: build it, or set KRAUD_BIN",
            )
        })?;
        // Overlay mounts need a disk file system below, which /tmp may not be.
        let directory = tempfile::Builder::new()
            .prefix("kraud-test.")
            .tempdir_in("/var/tmp")?;
        let mut daemon = Self {
            directory,
            binary,
            child: None,
        };
        daemon.launch()?;
        Ok(daemon)
    }

    /// Its directory: everything it owns is below.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory().join("kraud.sock")
    }

    /// As a value for `DOCKER_HOST`.
    #[must_use]
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join("kraud.log")).unwrap_or_default()
    }

    /// Ends it as a crash does; its containers go on.
    pub fn crash(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) -> io::Result<()> {
        self.crash()?;
        self.launch()
    }

    /// Stops its containers and itself; what is left then is the test's to judge.
    pub fn stop(mut self) -> io::Result<Leaks> {
        self.shut_down()?;
        Leaks::of(self.directory())
    }

    /// One request without a body over a connection of its own: status and body.
    pub fn request(&self, method: &str, path: &str) -> io::Result<(u16, String)> {
        self.send(method, path, "application/json", b"")
    }

    /// One request: status and body.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> io::Result<(u16, String)> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        parse_reply(&String::from_utf8_lossy(&reply))
    }

    fn launch(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory().join("kraud.log"))?;
        let child = Command::new(&self.binary)
            .args(["serve", "--listen", "none"])
            .arg("--data-dir")
            .arg(self.directory().join("data"))
            .arg("--socket")
            .arg(self.socket())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        if wait_until(READY, || {
            self.request("GET", "/_ping")
                .is_ok_and(|(status, _)| status == 200)
        }) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "kraud is not ready after {READY:?}:\n{}",
            self.log()
        )))
    }

    fn shut_down(&mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        Command::new(&self.binary)
            .args(["stop", "--containers", "--data-dir"])
            .arg(self.directory().join("data"))
            .arg("--socket")
            .arg(self.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if let Ok(None) = child.try_wait() {
            kill_process(Pid::from_child(&child), Signal::TERM)?;
        }
        if !wait_until(STOPPED, || matches!(child.try_wait(), Ok(Some(_)))) {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!(
                "kraud did not stop:\n{}",
                self.log()
            )));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            eprintln!("{error}");
        }
    }
}

fn parse_reply(reply: &str) -> io::Result<(u16, String)> {
    let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a reply without an end of its head",
        )
    })?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a reply without a status"))?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_apart() {
        assert_eq!(
            parse_reply("HTTP/1.0 204 No Content\r\nA: b\r\n\r\n").unwrap(),
            (204, String::new())
        );
        assert_eq!(
            parse_reply("HTTP/1.1 200 OK\r\n\r\nbody").unwrap(),
            (200, "body".into())
        );
        assert!(parse_reply("HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse_reply("nonsense\r\n\r\n").is_err());
    }
}
