//! The database file: who may open it, its tables, and the queries that read them.
//!
//! Keys are TEXT compared bytewise, so SQLite's order is the order of the UTF-8 bytes, which
//! is etcd's.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use super::{Durability, engine_error, sqlite_error};
use crate::{Entry, LeaseId, Listing, Result, Revision};

/// Marks the file as a kraud store ("krst"), so that a stranger's database is left alone.
const APPLICATION_ID: i64 = 0x6b72_7374;
/// The version of the tables below.
const SCHEMA_VERSION: i64 = 1;
/// How long a write waits for a stranger (a backup, a person with `sqlite3`) to let go.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('revision', 0);
    CREATE TABLE records (
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        lease INTEGER
    );
    CREATE INDEX records_by_lease ON records (lease) WHERE lease IS NOT NULL;
    CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ms INTEGER NOT NULL);
";

/// The right to be the only process on a store; let go on drop, or by the kernel.
///
/// It is a file of its own: SQLite's locks on the database belong to the process, and closing
/// any other descriptor of that file would drop them.
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    pub(super) fn take(database: &Path) -> Result<Self> {
        if let Some(directory) = database
            .parent()
            .filter(|path| !path.as_os_str().is_empty())
        {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|error| {
                    engine_error(format!("creating {}", directory.display()), error)
                })?;
        }
        let path = lock_path(database);
        let failed = |error| engine_error(format!("locking {}", path.display()), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(database, &mut file)),
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;
        write!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn in_use(database: &Path, lock: &mut File) -> crate::Error {
    let mut pid = String::new();
    let known = lock
        .rewind()
        .and_then(|()| lock.take(20).read_to_string(&mut pid));
    let holder = match known {
        Ok(1..) => format!("process {}", pid.trim()),
        _ => "another process".to_owned(),
    };
    engine_error(
        format!("opening {}", database.display()),
        format!("it is in use by {holder}; stop that one, or choose another data directory"),
    )
}

/// The writing connection with what the writer keeps in memory.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) revision: Revision,
    pub(super) leases: Vec<(LeaseId, Duration)>,
    pub(super) next_lease: i64,
}

pub(super) fn open_writer(path: &Path, durability: Durability) -> Result<Opened> {
    let failed =
        |error: rusqlite::Error| sqlite_error(format!("opening {}", path.display()), &error);
    // Values hold secrets; SQLite gives its side files the mode of the database.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| engine_error(format!("opening {}", path.display()), error))?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    check_file(path, &connection)?;
    prepare(connection, durability).map_err(failed)
}

/// Refuses what is not a store of this version or an empty file.
fn check_file(path: &Path, connection: &Connection) -> Result<()> {
    let operation = || format!("opening {}", path.display());
    let failed = |error: rusqlite::Error| sqlite_error(operation(), &error);
    let application = pragma(connection, "application_id").map_err(failed)?;
    let version = pragma(connection, "user_version").map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let empty = application == 0 && version == 0 && tables == 0;
    if !empty && application != APPLICATION_ID {
        return Err(engine_error(
            operation(),
            "it is a database of another program",
        ));
    }
    if version > SCHEMA_VERSION {
        return Err(engine_error(
            operation(),
            format!(
                "a newer kraud wrote it (format {version}, this one knows up to \
                 {SCHEMA_VERSION}); start that version, or restore a backup"
            ),
        ));
    }
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn prepare(connection: Connection, durability: Durability) -> rusqlite::Result<Opened> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    // A burst of large values must not leave a large log behind for good.
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    if pragma(&connection, "user_version")? == 0 {
        // One transaction, so that a kill in between leaves an empty file.
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};
             COMMIT;"
        ))?;
    }
    let revision = revision(&connection)?;
    let leases = connection
        .prepare("SELECT id, ttl_ms FROM leases")?
        .query_map([], |row| {
            let ttl = Duration::from_millis(row.get::<_, i64>(1)?.unsigned_abs());
            Ok((LeaseId(row.get(0)?), ttl))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let last_lease: Option<i64> = connection
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'leases'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(Opened {
        connection,
        revision,
        leases,
        next_lease: last_lease.unwrap_or(0) + 1,
    })
}

pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let open = || {
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "cache_size", -1024)?;
        Ok(connection)
    };
    open().map_err(|error| sqlite_error(format!("opening {}", path.display()), &error))
}

/// A revision as SQLite keeps it. 2^63 transactions are out of reach.
pub(super) fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

pub(super) fn revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'revision'")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
}

pub(super) fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached("SELECT key, value, created, modified, lease FROM records WHERE key = ?1")?
        .query_row([key], entry)
        .optional()
}

/// The records under `prefix` and the revision they were read at.
pub(super) fn list(connection: &Connection, prefix: &str) -> rusqlite::Result<Listing> {
    // One read transaction, so that the revision belongs to the records.
    let snapshot = connection.unchecked_transaction()?;
    let revision = revision(&snapshot)?;
    let (first, end) = range(prefix);
    let entries = snapshot
        .prepare_cached(
            "SELECT key, value, created, modified, lease FROM records
             WHERE key >= ?1 AND key < ?2 ORDER BY key",
        )?
        .query_map(params![first, end], entry)?
        .collect::<rusqlite::Result<_>>()?;
    snapshot.finish()?;
    Ok(Listing { revision, entries })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: row.get::<_, Vec<u8>>(1)?.into(),
        created: row.get::<_, i64>(2)?.unsigned_abs(),
        modified: row.get::<_, i64>(3)?.unsigned_abs(),
        lease: row.get::<_, Option<i64>>(4)?.map(LeaseId),
    })
}

/// The half-open range of keys that start with `prefix`, to be bound as TEXT and as it is.
pub(super) fn range(prefix: &str) -> (&str, Value) {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if let Some(next) = next_char(last) {
            end.push(next);
            return (prefix, Value::Text(end));
        }
    }
    // No end: SQLite sorts every BLOB behind every TEXT.
    (prefix, Value::Blob(Vec::new()))
}

/// The character after `c`, in the order of UTF-8 bytes, which is that of code points.
fn next_char(c: char) -> Option<char> {
    (u32::from(c) + 1..=u32::from(char::MAX)).find_map(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_behind_every_key_with_the_prefix() {
        let end = |prefix| range(prefix).1;
        assert_eq!(end("a/"), Value::Text("a0".to_owned()));
        assert_eq!(end(""), Value::Blob(Vec::new()));
        assert_eq!(end("\u{10ffff}"), Value::Blob(Vec::new()));
        assert_eq!(end("a\u{10ffff}"), Value::Text("b".to_owned()));
        assert_eq!(end("\u{d7ff}"), Value::Text("\u{e000}".to_owned()));
        assert_eq!(end("\u{7f}"), Value::Text("\u{80}".to_owned()));
    }
}
