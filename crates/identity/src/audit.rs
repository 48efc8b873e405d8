//! Who did what, when, from where, and with which token: a file of JSON lines that is only ever
//! added to.
//!
//! Entries are written behind, by a thread of their own: nobody waits for the disk, and a crash
//! may cost the last second's. A file that has grown large is put aside and kept.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use types::{Error, Result, Time, error::ResultExt as _, native::AuditEntry};

const NAME: &str = "audit.jsonl";
/// When a file is put aside, bytes.
const LARGE: u64 = 64 << 20;

/// What is looked for. Without a wish all fits.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub namespace: Option<String>,
    pub token: Option<String>,
    /// A part of the call, as in `DELETE /containers`.
    pub call: Option<String>,
    pub since: Option<Time>,
    pub until: Option<Time>,
    /// Only what was refused or failed.
    pub failed: bool,
    /// The last so many.
    pub last: Option<usize>,
}

impl AuditFilter {
    fn fits(&self, entry: &AuditEntry) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        is(
            &self.namespace,
            entry.namespace.as_ref().map(types::Namespace::as_str),
        ) && is(
            &self.token,
            entry.token.as_ref().map(types::TokenId::as_str),
        ) && self
            .call
            .as_deref()
            .is_none_or(|part| entry.call.contains(part))
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time <= until)
            && (!self.failed || entry.status >= 400)
    }
}

/// The log of an installation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    directory: PathBuf,
    sender: mpsc::Sender<AuditEntry>,
}

impl Audit {
    /// Opens the log in `directory`, which is made for root alone. Blocks.
    pub fn open(directory: &Path) -> Result<Self> {
        let about = || format!("opening the audit log in {}", directory.display());
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::wrap(about(), error));
            }
            _ => {}
        }
        let file = append(directory).during(about)?;
        let (sender, receiver) = mpsc::channel();
        let place = directory.to_owned();
        thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(&place, file, &receiver))
            .during(about)?;
        Ok(Self {
            directory: directory.to_owned(),
            sender,
        })
    }

    /// Adds an entry.
    pub fn add(&self, entry: AuditEntry) {
        if self.sender.send(entry).is_err() {
            tracing::error!("the audit log is not written any more: restart kraud");
        }
    }

    /// The entries that fit, the oldest first. Blocks.
    pub fn read(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>> {
        let about = || format!("reading the audit log in {}", self.directory.display());
        let mut files: Vec<PathBuf> = fs::read_dir(&self.directory)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect()
            })
            .during(about)?;
        // Those put aside bear the time they were; the one that grows comes last.
        files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
        files.sort_by_key(|path| (path.ends_with(NAME), path.clone()));
        let mut found = std::collections::VecDeque::new();
        for path in files {
            for line in BufReader::new(File::open(&path).during(about)?).lines() {
                // What a crash has cut off is no entry.
                let Ok(entry) = serde_json::from_str::<AuditEntry>(&line.during(about)?) else {
                    continue;
                };
                if filter.fits(&entry) {
                    found.push_back(entry);
                    if filter.last.is_some_and(|last| found.len() > last) {
                        found.pop_front();
                    }
                }
            }
        }
        Ok(found.into())
    }
}

fn append(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(directory.join(NAME))
}

fn write_all(directory: &Path, mut file: File, entries: &mpsc::Receiver<AuditEntry>) {
    let mut failing = false;
    while let Ok(first) = entries.recv() {
        let mut text = Vec::new();
        for entry in std::iter::once(first).chain(entries.try_iter()) {
            if serde_json::to_writer(&mut text, &entry).is_ok() {
                text.push(b'\n');
            }
        }
        let written = file
            .write_all(&text)
            .and_then(|()| put_aside(directory, &mut file));
        match written {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "entries of the audit log are lost");
            }
            Err(_) => {}
        }
    }
    let _ = file.sync_all();
}

fn put_aside(directory: &Path, file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() < LARGE {
        return Ok(());
    }
    file.sync_all()?;
    let now = Time::now().to_string().replace(':', ".");
    fs::rename(
        directory.join(NAME),
        directory.join(format!("audit-{now}.jsonl")),
    )?;
    *file = append(directory)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt as _,
        time::{Duration, Instant},
    };

    use super::*;

    fn entry(call: &str, namespace: &str, status: u16) -> AuditEntry {
        AuditEntry {
            time: Time::now(),
            namespace: Some(namespace.parse().unwrap()),
            role: None,
            token: None,
            by: None,
            from: "192.0.2.1".into(),
            call: call.into(),
            status,
        }
    }

    fn calls(audit: &Audit, filter: &AuditFilter) -> Vec<String> {
        let entries = audit.read(filter).unwrap();
        entries.into_iter().map(|entry| entry.call).collect()
    }

    #[test]
    fn what_is_added_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("audit");
        let audit = Audit::open(&place).unwrap();
        audit.add(entry("POST /containers/create", "shop", 201));
        audit.add(entry("DELETE /containers/x", "shop", 404));
        audit.add(entry("POST /volumes/create", "other", 201));
        let deadline = Instant::now() + Duration::from_secs(10);
        let all = AuditFilter::default();
        while audit.read(&all).unwrap().len() < 3 {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(10));
        }
        // A line that was cut off, and another start.
        append(&place).unwrap().write_all(b"{\"time\":").unwrap();
        drop(audit);
        let audit = Audit::open(&place).unwrap();
        assert_eq!(calls(&audit, &all).len(), 3);
        let filter = |change: fn(&mut AuditFilter)| {
            let mut filter = AuditFilter::default();
            change(&mut filter);
            calls(&audit, &filter)
        };
        assert_eq!(
            filter(|f| f.namespace = Some("other".into())),
            ["POST /volumes/create"]
        );
        assert_eq!(filter(|f| f.failed = true), ["DELETE /containers/x"]);
        assert_eq!(
            filter(|f| f.call = Some("DELETE".into())),
            ["DELETE /containers/x"]
        );
        assert_eq!(filter(|f| f.last = Some(1)), ["POST /volumes/create"]);
        assert_eq!(filter(|f| f.until = Some(Time::ZERO)), [""; 0]);
        assert_eq!(filter(|f| f.since = Some(Time::ZERO)).len(), 3);
        for (path, mode) in [(place.clone(), 0o700), (place.join(NAME), 0o600)] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
    }
}
