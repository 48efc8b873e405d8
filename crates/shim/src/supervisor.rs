//! The loop: what happens between the process, its log and its clients.
//!
//! ```text
//! Starting --(OCI runtime ended well)--> Running --(process ended)--> Draining --(output at
//!    |                                                                 its end)--> Told --> end
//!    `--(OCI runtime failed)--> end
//! ```

use std::{
    fs,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shim::proto::{Config, Exit, Report, Started, Stdin, files, hello, kind};

use crate::{
    client::{Client, Frame},
    input::Input,
    jsonlog::{JsonLog, Source},
    spawn::{self, Child},
    sys, tell, time,
};

/// How long output is held for the first client.
const HOLD: Duration = Duration::from_secs(10);
/// How long output is read after the end of the process, when others keep its streams open.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How long a client that takes nothing more is waited for at the end.
const LINGER: Duration = Duration::from_secs(30);
/// What is read at once.
const BUFFER: usize = 32 * 1024;

#[derive(Debug, PartialEq)]
enum Phase {
    Starting,
    Running(i32),
    /// Ended; others may still hold its streams until the deadline.
    Draining(Exit, Instant),
    /// Everybody was told; slow clients have until the deadline.
    Told(Exit, Instant),
}

/// A descriptor to wait for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Signals,
    Listener,
    Console,
    Output(Source),
    Input,
    Client(usize),
}

pub(crate) struct Supervisor {
    config: Config,
    directory: PathBuf,
    listener: UnixListener,
    signals: OwnedFd,
    phase: Phase,
    /// The OCI runtime, as long as it runs.
    runtime: i32,
    /// Its exit code.
    runtime_code: i32,
    /// Its console socket, as long as the terminal is awaited.
    console: Option<UnixListener>,
    input: Input,
    outputs: [Option<fs::File>; 2],
    /// A duplicate of the terminal, to set its size.
    terminal: Option<OwnedFd>,
    log: Option<JsonLog>,
    clients: Vec<Client>,
    started: Started,
    /// Output is held until then, or until a client wants it.
    hold: Option<Instant>,
    buffer: Vec<u8>,
}

impl Supervisor {
    pub(crate) fn new(
        config: Config,
        directory: PathBuf,
        listener: UnixListener,
        signals: OwnedFd,
        child: Child,
    ) -> Self {
        let hold = config.wait_attach.then(|| Instant::now() + HOLD);
        Self {
            config,
            directory,
            listener,
            signals,
            phase: Phase::Starting,
            runtime: child.runtime,
            runtime_code: 0,
            console: child.console,
            input: child.input,
            outputs: [child.stdout, child.stderr],
            terminal: None,
            log: None,
            clients: Vec::new(),
            started: Started::default(),
            hold,
            buffer: vec![0; BUFFER],
        }
    }

    /// Runs until all is done; the report is made as soon as it is known.
    pub(crate) fn run(mut self, mut report: fs::File) -> io::Result<()> {
        sys::protect_from_oom();
        while self.runtime != 0 {
            self.turn()?;
        }
        if let Phase::Starting = self.phase {
            let words =
                spawn::failure(&self.directory, self.outputs[1].as_mut(), self.runtime_code);
            return tell(&mut report, &Report::Failed(words));
        }
        // The log is opened first: a file that cannot be made is the start's failure to tell.
        if let Some(settings) = self.config.log.clone() {
            self.log = JsonLog::open(settings).ok();
        }
        write_atomically(
            &self.directory.join(files::STARTED),
            &serde_json::to_vec(&self.started)?,
        )?;
        // The daemon may have died meanwhile.
        let _ = tell(&mut report, &Report::Started(self.started));
        drop(report);
        self.broadcast(kind::STARTED, 0, &serde_json::to_vec(&self.started)?);
        while !self.is_done() {
            self.turn()?;
        }
        // Who comes now is refused and reads the record.
        let Config {
            exit_sync,
            exit_file,
            ..
        } = self.close();
        if exit_sync {
            // Against a failing power supply only: a file that was renamed into its place
            // outlives all processes. On a busy disk this takes seconds, so nobody waits.
            fs::File::open(exit_file)?.sync_all()?;
        }
        Ok(())
    }

    /// Lets go of everything but the configuration.
    fn close(self) -> Config {
        self.config
    }

    fn is_done(&mut self) -> bool {
        let Phase::Told(_, deadline) = self.phase else {
            return false;
        };
        // Who connected meanwhile still waits in the listener.
        self.accept();
        self.clients.is_empty() || Instant::now() > deadline
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let (tokens, ready) = self.wait()?;
        // Clients are removed only after the round: tokens hold their places.
        for (token, flags) in tokens.into_iter().zip(ready) {
            if flags.is_empty() {
                continue;
            }
            match token {
                Token::Signals => self.reap()?,
                Token::Listener => self.accept(),
                Token::Console => self.take_terminal()?,
                Token::Output(source) => self.read_output(source),
                Token::Input => self.input.write(),
                Token::Client(place) => self.serve(place, flags),
            }
        }
        self.advance()?;
        self.clients
            .retain(|client| !client.finished || client.has_outgoing());
        Ok(())
    }

    fn wait(&self) -> io::Result<(Vec<Token>, Vec<PollFlags>)> {
        let mut tokens = vec![Token::Signals, Token::Listener];
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let mut add = |token, descriptor, flags| {
            tokens.push(token);
            polled.push(PollFd::new(descriptor, flags));
        };
        if let Some(console) = &self.console {
            add(Token::Console, console.as_fd(), PollFlags::POLLIN);
        }
        if self.reads_output() {
            for source in [Source::Stdout, Source::Stderr] {
                if let Some(output) = &self.outputs[source as usize] {
                    add(Token::Output(source), output.as_fd(), PollFlags::POLLIN);
                }
            }
        }
        if let Some(target) = self.input.waiting() {
            add(Token::Input, target.as_fd(), PollFlags::POLLOUT);
        }
        for (place, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !self.input.is_full() && !client.finished);
            flags.set(PollFlags::POLLOUT, client.has_outgoing());
            // With neither, the kernel would still report a hangup, again and again.
            if !flags.is_empty() {
                add(Token::Client(place), client.stream.as_fd(), flags);
            }
        }
        match poll(&mut polled, self.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = polled
            .iter()
            .map(|entry| entry.revents().unwrap_or(PollFlags::empty()))
            .collect();
        Ok((tokens, ready))
    }

    /// Output is read once the process runs, and as fast as the slowest client takes it.
    fn reads_output(&self) -> bool {
        let phase = matches!(self.phase, Phase::Running(_) | Phase::Draining(..));
        phase && self.hold.is_none() && !self.clients.iter().any(Client::is_full)
    }

    fn timeout(&self) -> PollTimeout {
        let deadline = match self.phase {
            Phase::Draining(_, deadline) | Phase::Told(_, deadline) => {
                self.hold.map_or(deadline, |hold| hold.min(deadline))
            }
            _ => match self.hold {
                Some(hold) => hold,
                None => return PollTimeout::NONE,
            },
        };
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    /// Collects dead children: the OCI runtime first, then the process, and its orphans.
    fn reap(&mut self) -> io::Result<()> {
        sys::drain(&self.signals);
        if self.runtime != 0 {
            let Some((_, code, _)) = sys::reap(Some(self.runtime)) else {
                return Ok(());
            };
            self.runtime = 0;
            self.runtime_code = code;
            if code != 0 {
                return Ok(());
            }
            let text = fs::read_to_string(self.directory.join(files::PID))?;
            let pid = text
                .trim()
                .parse()
                .map_err(|_| io::Error::other("the OCI runtime wrote no process id"))?;
            self.started = Started {
                pid,
                start_time: start_time(pid).unwrap_or_default(),
            };
            self.phase = Phase::Running(pid);
            // A terminal was sent before the OCI runtime ended.
            if self.console.is_some() && self.terminal.is_none() {
                self.take_terminal()?;
            }
        }
        while let Some((pid, code, signal)) = sys::reap(None) {
            if self.phase == Phase::Running(pid) {
                self.process_ended(code, signal)?;
            }
        }
        Ok(())
    }

    fn process_ended(&mut self, code: i32, signal: Option<i32>) -> io::Result<()> {
        let mut finished_at = Vec::new();
        time::append_now(&mut finished_at);
        let exit = Exit {
            code,
            signal,
            oom: self.oom_killed(),
            finished_at: String::from_utf8_lossy(&finished_at).into_owned(),
        };
        // Recorded before anybody is told. Its directory is gone when the container is removed.
        let _ = write_atomically(&self.config.exit_file, &serde_json::to_vec(&exit)?);
        self.phase = Phase::Draining(exit, Instant::now() + AFTERMATH);
        Ok(())
    }

    fn oom_killed(&self) -> bool {
        let text = self
            .config
            .oom_file
            .as_ref()
            .and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
        count.is_some_and(|count| count > 0)
    }

    /// The OCI runtime hands the terminal over.
    fn take_terminal(&mut self) -> io::Result<()> {
        let Some(console) = &self.console else {
            return Ok(());
        };
        let (socket, _) = match console.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        // A runtime that fails connects and hangs up; its exit status tells why.
        let Ok(terminal) = sys::receive_descriptor(&socket) else {
            self.console = None;
            return Ok(());
        };
        sys::set_nonblocking(&terminal)?;
        if self.config.width > 0 && self.config.height > 0 {
            sys::set_size(&terminal, self.config.width, self.config.height);
        }
        if self.config.stdin != Stdin::None {
            self.input = Input::new(Some(terminal.try_clone()?));
        }
        self.terminal = Some(terminal.try_clone()?);
        self.outputs[0] = Some(terminal.into());
        self.console = None;
        let _ = fs::remove_file(self.directory.join(files::CONSOLE));
        Ok(())
    }

    fn read_output(&mut self, source: Source) {
        let Some(output) = &mut self.outputs[source as usize] else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        match output.read(&mut buffer) {
            Ok(count) if count > 0 => self.deliver(source, &buffer[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            // A terminal whose other side is closed gives an error instead of an end.
            _ => self.end_output(source),
        }
        self.buffer = buffer;
    }

    fn deliver(&mut self, source: Source, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            log.take(source, bytes);
        }
        match source {
            Source::Stdout => self.broadcast(kind::STDOUT, hello::STDOUT, bytes),
            Source::Stderr => self.broadcast(kind::STDERR, hello::STDERR, bytes),
        }
    }

    fn end_output(&mut self, source: Source) {
        self.outputs[source as usize] = None;
        if let Some(log) = &mut self.log {
            log.end(source);
        }
    }

    /// Sends a frame to all greeted clients that want any of `flags` (0: to all of them).
    fn broadcast(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        for client in &mut self.clients {
            let wanted = client
                .wants
                .is_some_and(|wants| flags == 0 || wants & flags != 0);
            if wanted && client.send(kind, payload).is_err() {
                client.abandon();
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(stream));
            }
        }
    }

    fn serve(&mut self, place: usize, flags: PollFlags) {
        let Some(client) = self.clients.get_mut(place) else {
            return;
        };
        let mut alive = !flags.contains(PollFlags::POLLOUT) || client.flush().is_ok();
        if alive && flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = client.receive(&mut buffer);
            self.buffer = buffer;
            match received {
                Ok(frames) => {
                    alive = frames
                        .into_iter()
                        .all(|frame| self.obey(place, frame).is_ok())
                }
                Err(_) => alive = false,
            }
        }
        if !alive && let Some(client) = self.clients.get_mut(place) {
            client.abandon();
        }
    }

    /// Does what a client says.
    fn obey(&mut self, place: usize, (kind, payload): Frame) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(place) else {
            return Ok(());
        };
        match kind {
            kind::HELLO => {
                let wants = payload.first().copied().unwrap_or_default();
                client.wants = Some(wants);
                client.send(kind::WELCOME, &serde_json::to_vec(&self.started)?)?;
                if wants & (hello::STDOUT | hello::STDERR) != 0 {
                    self.hold = None;
                }
                if let Phase::Told(exit, _) = &self.phase {
                    client.send(kind::EXIT, &serde_json::to_vec(exit)?)?;
                    client.finished = true;
                }
            }
            kind::STDIN if client.wants.is_some_and(|wants| wants & hello::STDIN != 0) => {
                self.input.push(&payload)
            }
            // A terminal has no end of input, it has a key for it.
            kind::STDIN_CLOSE if self.config.stdin == Stdin::Once && !self.config.tty => {
                self.input.close()
            }
            kind::RESIZE => {
                if let (Some(terminal), [a, b, c, d]) = (&self.terminal, payload.as_slice()) {
                    sys::set_size(
                        terminal,
                        u16::from_le_bytes([*a, *b]),
                        u16::from_le_bytes([*c, *d]),
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Goes on to the next phase when the time has come.
    fn advance(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.hold.is_some_and(|hold| now > hold) {
            self.hold = None;
        }
        let Phase::Draining(exit, deadline) = &self.phase else {
            return Ok(());
        };
        let blocked = !self.reads_output();
        let ended = self.outputs.iter().all(Option::is_none);
        if !ended && blocked {
            // Waiting for a client is not the process's time.
            self.phase = Phase::Draining(exit.clone(), now + AFTERMATH);
            return Ok(());
        }
        if !ended && now <= *deadline {
            return Ok(());
        }
        let exit = exit.clone();
        self.end_output(Source::Stdout);
        self.end_output(Source::Stderr);
        self.broadcast(kind::EXIT, 0, &serde_json::to_vec(&exit)?);
        for client in &mut self.clients {
            client.finished = client.wants.is_some();
        }
        self.phase = Phase::Told(exit, now + LINGER);
        Ok(())
    }
}

/// When a process started, in clock ticks since boot (field 22 of /proc/PID/stat).
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Readers see the whole file or none.
fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}
