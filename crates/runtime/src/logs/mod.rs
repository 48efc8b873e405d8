//! Reading logs in docker's json-file format, newest file and rotated ones as one stream.
//!
//! The shim writes them; this module only reads. A reader that follows is woken by inotify,
//! goes on across rotations, and ends when the container has ended and all is read.

mod entry;
mod follow;
mod tail;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;
use types::{ContainerId, Time};

pub use self::entry::LogEntry;
use crate::{
    Runtime,
    error::{Error, Result},
};

/// Which part of a log to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    /// Not before.
    pub since: Option<Time>,
    /// Not after.
    pub until: Option<Time>,
    /// The last lines only; they are counted before the other conditions apply.
    pub tail: Option<u64>,
    /// Go on as the container prints.
    pub follow: bool,
}

/// Batches of entries; an error is the last item.
pub type Batches = mpsc::Receiver<Result<Vec<LogEntry>>>;

/// Bytes read at once.
const CHUNK: usize = 128 * 1024;
/// Batches under way to the reader of the stream.
const AHEAD: usize = 4;

impl Runtime {
    /// Reads the log at `path` of a container. With `follow` the stream ends after the
    /// container's end; that of a container which does not run ends with the log.
    pub fn logs(&self, id: &ContainerId, path: PathBuf, query: LogQuery) -> Batches {
        let ended = Arc::new(AtomicBool::new(!query.follow));
        if query.follow {
            let (runtime, id, ended) = (self.clone(), id.clone(), ended.clone());
            tokio::spawn(async move {
                // The shim says it after the last line is written.
                runtime.shim_ended(&id).await;
                ended.store(true, Ordering::Release);
            });
        }
        read(path, query, ended)
    }
}

/// Reads a log on a thread of its own. With `query.follow` it goes on until `ended` is set.
pub fn read(path: PathBuf, query: LogQuery, ended: Arc<AtomicBool>) -> Batches {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let failed = sender.clone();
    let reader = Reader {
        query,
        sender,
        pending: Vec::new(),
        finished: false,
    };
    let thread = std::thread::Builder::new()
        .name("log reader".into())
        .stack_size(256 * 1024);
    let spawned = thread.spawn(move || reader.run(&path, &ended));
    if let Err(error) = spawned {
        let _ = failed.try_send(Err(Error::io("start a log reader")(error)));
    }
    receiver
}

/// One pass over a log.
struct Reader {
    query: LogQuery,
    sender: mpsc::Sender<Result<Vec<LogEntry>>>,
    /// The begun line at the end of what was read.
    pending: Vec<u8>,
    /// Nothing more is wanted.
    finished: bool,
}

impl Reader {
    fn run(mut self, path: &Path, ended: &AtomicBool) {
        if let Err(error) = self.read_all(path, ended) {
            let _ = self
                .sender
                .blocking_send(Err(Error::io(format!("read the log {}", path.display()))(
                    error,
                )));
        }
    }

    fn read_all(&mut self, path: &Path, ended: &AtomicBool) -> io::Result<()> {
        let watch = if self.query.follow {
            Some(follow::Watch::new(path)?)
        } else {
            None
        };
        let mut files = tail::open_all(path)?;
        if let Some(lines) = self.query.tail {
            tail::seek(&mut files, lines)?;
        }
        let newest = files.pop();
        for mut file in files {
            self.drain(&mut file)?;
        }
        let Some(mut newest) = newest else {
            return Ok(());
        };
        self.drain(&mut newest)?;
        match watch {
            Some(watch) => self.follow(path, newest, &watch, ended),
            None => Ok(()),
        }
    }

    fn follow(
        &mut self,
        path: &Path,
        mut file: File,
        watch: &follow::Watch,
        ended: &AtomicBool,
    ) -> io::Result<()> {
        while !self.finished && !self.sender.is_closed() {
            // Asked first: what is written before the end is then read for certain.
            let last = ended.load(Ordering::Acquire);
            self.drain(&mut file)?;
            if let Some(next) = follow::successor(path, &file)? {
                // Lines may have come between the last read and the rotation.
                self.drain(&mut file)?;
                file = next;
                continue;
            }
            if last {
                break;
            }
            watch.wait()?;
        }
        Ok(())
    }

    /// Reads to the present end of a file.
    fn drain(&mut self, file: &mut File) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        follow::rewind_if_emptied(file)?;
        while !self.finished {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            self.take(&chunk[..count]);
        }
        Ok(())
    }

    /// Sends the complete lines.
    fn take(&mut self, chunk: &[u8]) {
        let Some(end) = chunk.iter().rposition(|&byte| byte == b'\n') else {
            self.pending.extend_from_slice(chunk);
            return;
        };
        let (lines, rest) = chunk.split_at(end + 1);
        let begun = std::mem::take(&mut self.pending);
        let mut batch = Vec::new();
        if begun.is_empty() {
            self.collect(lines, &mut batch);
        } else {
            self.collect(&[&begun, lines].concat(), &mut batch);
        }
        self.pending.extend_from_slice(rest);
        if !batch.is_empty() && self.sender.blocking_send(Ok(batch)).is_err() {
            self.finished = true;
        }
    }

    fn collect(&mut self, lines: &[u8], batch: &mut Vec<LogEntry>) {
        for line in lines
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            // A line that was cut off by a crash is skipped, as docker does.
            let Some(entry) = LogEntry::parse(line) else {
                continue;
            };
            if self.query.since.is_some_and(|since| entry.time < since) {
                continue;
            }
            if self.query.until.is_some_and(|until| entry.time > until) {
                self.finished = true;
                return;
            }
            batch.push(entry);
        }
    }
}
