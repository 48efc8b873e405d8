//! The threads that read: each owns one read-only connection, so that neither the runtime nor
//! the writer ever waits for a read.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{engine_error, schema, sqlite_error};
use crate::Result;

/// Reads are microseconds; two threads keep a long listing from holding up the rest.
const THREADS: usize = 2;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The reading threads; dropping it joins them.
pub(super) struct Readers {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut readers = Self {
            jobs: Some(jobs),
            threads: Vec::new(),
        };
        for _ in 0..THREADS {
            let connection = schema::open_reader(path)?;
            let queue = queue.clone();
            let thread = std::thread::Builder::new()
                .name("store-read".to_owned())
                .spawn(move || serve(&connection, &queue))
                .map_err(|error| engine_error("starting a reading thread", error))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Runs `query` on a reading thread; `operation` names it in an error.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operation: impl Fn() -> String,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have gone away meanwhile.
            let _ = reply.send(query(connection));
        });
        let stopped = || engine_error(operation(), "the store has stopped");
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(job).map_err(|_| stopped())?;
        let result = answer.await.map_err(|_| stopped())?;
        result.map_err(|error| sqlite_error(operation(), &error))
    }
}

fn serve(connection: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        // Only the waiting happens under the lock, not the job.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(connection),
            Err(_) => return,
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say than its message.
            let _ = thread.join();
        }
    }
}
