//! The one thread that writes: it takes everything that is queued, applies it in one SQLite
//! transaction, makes that durable once, tells the watches, and only then answers.
//!
//! Each queued transaction is judged for itself, seeing those before it. Its guards and leases
//! are checked before its first write, so a refused one leaves nothing to undo. When SQLite
//! itself fails, the batch is rolled back and its members are tried one by one, so that one
//! transaction (too large, say) does not fail its neighbours.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::history::History;
use super::leases::Leases;
use super::schema::{range, to_sql};
use super::{engine_error, sqlite_error};
use crate::{Change, Entry, Error, Guard, LeaseId, Op, Result, Revision, Txn};

/// Transactions that share one commit at most; bounds how long the first of them waits.
const BATCH: usize = 256;

/// Something to be written.
pub(super) enum Work {
    Commit(Txn),
    Grant { lease: LeaseId, ttl: Duration },
    Revoke(LeaseId),
}

struct Job {
    work: Work,
    /// Nobody waits for the end of a lease that ran out.
    reply: Option<oneshot::Sender<Result<Revision>>>,
}

/// The writing thread; dropping it finishes what is queued and joins it.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        revision: Revision,
        history: Arc<History>,
        leases: Arc<Leases>,
    ) -> Result<Self> {
        let (jobs, queue) = channel();
        let mut state = State {
            connection,
            revision,
            history,
            leases,
        };
        let thread = std::thread::Builder::new()
            .name("store-write".to_owned())
            .spawn(move || state.serve(&queue))
            .map_err(|error| engine_error("starting the writing thread", error))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Queues `work` and waits until it is durable. A caller that stops waiting does not undo
    /// it: it may still be written.
    pub(super) async fn submit(&self, work: Work) -> Result<Revision> {
        let (reply, answer) = oneshot::channel();
        let stopped = || engine_error("committing", "the store has stopped");
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(Job {
            work,
            reply: Some(reply),
        })
        .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to say than its message.
            let _ = thread.join();
        }
    }
}

/// Why one transaction was not applied.
enum Failure {
    /// By its own guards or leases; nothing of it was written.
    Refused(Error),
    /// By SQLite; the batch must be rolled back.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Broken(error)
    }
}

/// A result of one transaction within a batch.
type Attempt<T> = std::result::Result<T, Failure>;

/// What one job of a batch came to: the revision after it and its changes.
type Outcome = Result<(Revision, Vec<Change>)>;

struct State {
    connection: Connection,
    /// The newest durable revision.
    revision: Revision,
    history: Arc<History>,
    leases: Arc<Leases>,
}

impl State {
    fn serve(&mut self, queue: &Receiver<Job>) {
        loop {
            let mut batch = match self.wait(queue) {
                Ok(Some(job)) => vec![job],
                Ok(None) => Vec::new(),
                Err(_) => return,
            };
            let expired = self.leases.take_due();
            batch.extend(expired.into_iter().map(|lease| Job {
                work: Work::Revoke(lease),
                reply: None,
            }));
            batch.extend(queue.try_iter().take(BATCH));
            self.run(batch);
        }
    }

    /// The next job, or none when a lease is due first.
    fn wait(&self, queue: &Receiver<Job>) -> std::result::Result<Option<Job>, RecvTimeoutError> {
        // A lease that is granted or renewed meanwhile is never due before this wakes up:
        // grants come through the queue, and a renewal only moves the time back.
        let Some(due) = self.leases.next_due() else {
            return queue
                .recv()
                .map(Some)
                .map_err(|_| RecvTimeoutError::Disconnected);
        };
        match queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            other => other.map(Some),
        }
    }

    fn run(&mut self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        match self.transact(&batch) {
            Ok(outcomes) => self.finish(batch, outcomes),
            Err(error) if batch.len() == 1 => {
                let failed = vec![Err(sqlite_error("committing", &error))];
                self.finish(batch, failed);
            }
            Err(error) => {
                tracing::debug!(%error, jobs = batch.len(), "store: a batch failed, trying its members one by one");
                batch.into_iter().for_each(|job| self.run(vec![job]));
            }
        }
    }

    /// Applies a batch in one durable SQLite transaction, or nothing of it.
    fn transact(&mut self, batch: &[Job]) -> rusqlite::Result<Vec<Outcome>> {
        let transaction = rusqlite::Transaction::new_unchecked(
            &self.connection,
            rusqlite::TransactionBehavior::Immediate,
        )?;
        let mut revision = self.revision;
        let mut outcomes = Vec::with_capacity(batch.len());
        for job in batch {
            let step = Step {
                connection: &transaction,
                leases: &self.leases,
                revision: revision + 1,
            };
            outcomes.push(match step.apply(&job.work) {
                Ok(changes) => {
                    // Only what changes something makes history.
                    revision += Revision::from(!changes.is_empty());
                    Ok((revision, changes))
                }
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::Broken(error)) => return Err(error),
            });
        }
        if revision != self.revision {
            transaction
                .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'revision'")?
                .execute([to_sql(revision)])?;
        }
        transaction.commit()?;
        self.revision = revision;
        Ok(outcomes)
    }

    /// Makes a batch known: leases, then watches, then those who wait for it.
    fn finish(&self, batch: Vec<Job>, outcomes: Vec<Outcome>) {
        let mut history = Vec::new();
        let mut replies = Vec::with_capacity(batch.len());
        for (job, outcome) in batch.into_iter().zip(outcomes) {
            self.settle_lease(&job, &outcome);
            let result = outcome.map(|(revision, changes)| {
                if !changes.is_empty() {
                    history.push((revision, changes));
                }
                revision
            });
            replies.push((job.reply, result));
        }
        self.history.publish(history);
        for (reply, result) in replies {
            if let Some(reply) = reply {
                // The caller may have gone away meanwhile.
                let _ = reply.send(result);
            }
        }
    }

    fn settle_lease(&self, job: &Job, outcome: &Outcome) {
        match (&job.work, outcome) {
            (Work::Grant { lease, ttl }, Ok(_)) => self.leases.insert(*lease, *ttl),
            (Work::Revoke(lease), Ok(_) | Err(Error::LeaseExpired(_))) => {
                self.leases.remove(*lease)
            }
            (Work::Revoke(lease), Err(error)) if job.reply.is_none() => {
                tracing::warn!(lease = lease.0, %error, "store: an expired lease could not be ended, trying again");
            }
            _ => {}
        }
    }
}

/// One transaction within a batch.
struct Step<'a> {
    connection: &'a Connection,
    leases: &'a Leases,
    /// The revision that it makes if it changes anything.
    revision: Revision,
}

impl Step<'_> {
    fn apply(&self, work: &Work) -> Attempt<Vec<Change>> {
        match work {
            Work::Commit(txn) => self.commit(txn),
            Work::Grant { lease, ttl } => {
                let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                self.connection
                    .prepare_cached("INSERT INTO leases (id, ttl_ms) VALUES (?1, ?2)")?
                    .execute(params![lease.0, ttl])?;
                Ok(Vec::new())
            }
            Work::Revoke(lease) => self.revoke(*lease),
        }
    }

    fn commit(&self, txn: &Txn) -> Attempt<Vec<Change>> {
        for guard in &txn.guards {
            self.check(guard)?;
        }
        for op in &txn.ops {
            if let Op::Put {
                lease: Some(lease), ..
            } = op
            {
                self.check_lease(*lease)?;
            }
        }
        let mut changes = Vec::new();
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => changes.push(self.put(key, value, *lease)?),
                Op::Delete { key } => changes.extend(self.delete(key)?),
                Op::DeletePrefix { prefix } => changes.extend(self.delete_prefix(prefix)?),
            }
        }
        Ok(changes)
    }

    fn check(&self, guard: &Guard) -> Attempt<()> {
        let (key, holds) = match guard {
            Guard::Absent(key) => (key, self.modified(key)?.is_none()),
            Guard::Present(key) => (key, self.modified(key)?.is_some()),
            Guard::Unchanged(key, at) => (key, self.modified(key)?.unwrap_or(0) == to_sql(*at)),
        };
        if holds {
            Ok(())
        } else {
            Err(Failure::Refused(Error::Conflict { key: key.clone() }))
        }
    }

    fn modified(&self, key: &str) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT modified FROM records WHERE key = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()
    }

    /// The table knows what this batch did, the memory knows the time.
    fn check_lease(&self, lease: LeaseId) -> Attempt<()> {
        let stored = self
            .connection
            .prepare_cached("SELECT 1 FROM leases WHERE id = ?1")?
            .exists([lease.0])?;
        if stored && self.leases.is_alive(lease) {
            return Ok(());
        }
        Err(Failure::Refused(Error::LeaseExpired(lease)))
    }

    fn put(
        &self,
        key: &str,
        value: &bytes::Bytes,
        lease: Option<LeaseId>,
    ) -> rusqlite::Result<Change> {
        let created: i64 = self
            .connection
            .prepare_cached(
                "INSERT INTO records (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?3, ?4)
                 ON CONFLICT (key) DO UPDATE SET
                     value = excluded.value, modified = excluded.modified, lease = excluded.lease
                 RETURNING created",
            )?
            .query_row(
                params![key, &value[..], to_sql(self.revision), lease.map(|lease| lease.0)],
                |row| row.get(0),
            )?;
        Ok(Change::Put(Entry {
            key: key.to_owned(),
            value: value.clone(),
            created: created.unsigned_abs(),
            modified: self.revision,
            lease,
        }))
    }

    fn delete(&self, key: &str) -> rusqlite::Result<Option<Change>> {
        let deleted = self
            .connection
            .prepare_cached("DELETE FROM records WHERE key = ?1")?
            .execute([key])?;
        Ok((deleted > 0).then(|| self.deleted(key.to_owned())))
    }

    fn delete_prefix(&self, prefix: &str) -> rusqlite::Result<Vec<Change>> {
        let (first, end) = range(prefix);
        self.delete_where(
            "DELETE FROM records WHERE key >= ?1 AND key < ?2 RETURNING key",
            params![first, end],
        )
    }

    fn revoke(&self, lease: LeaseId) -> Attempt<Vec<Change>> {
        let known = self
            .connection
            .prepare_cached("DELETE FROM leases WHERE id = ?1")?
            .execute([lease.0])?;
        if known == 0 {
            return Err(Failure::Refused(Error::LeaseExpired(lease)));
        }
        Ok(self.delete_where(
            "DELETE FROM records WHERE lease = ?1 RETURNING key",
            params![lease.0],
        )?)
    }

    fn delete_where(
        &self,
        sql: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<Vec<Change>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut keys = statement
            .query_map(params, |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<String>>>()?;
        // SQLite leaves the order open.
        keys.sort_unstable();
        Ok(keys.into_iter().map(|key| self.deleted(key)).collect())
    }

    fn deleted(&self, key: String) -> Change {
        Change::Deleted {
            key,
            revision: self.revision,
        }
    }
}
