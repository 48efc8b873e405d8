//! A process that is killed in the middle of committing loses nothing that it was told is
//! committed, and leaves no half of a transaction.
//!
//! SIGKILL shows that nothing acknowledged lives in the process alone; that the disk keeps it
//! through a loss of power is SQLite's promise for `synchronous=FULL`.
#![allow(clippy::unwrap_used, reason = "a failed call is a failed test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use store::{Embedded, Store, Txn};

const DATABASE: &str = "STORE_CRASH_DATABASE";
const ROUND: &str = "STORE_CRASH_ROUND";
const ROUNDS: u32 = 5;
const WRITERS: u32 = 8;

/// The child: commits until it is killed, and prints the name of each commit once it is done.
/// Does nothing unless the other test starts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(path), Ok(round)) = (std::env::var(DATABASE), std::env::var(ROUND)) else {
        return;
    };
    let store = Arc::new(Embedded::open(Path::new(&path)).unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (store, round) = (store.clone(), round.clone());
        writers.spawn(async move {
            for i in 0.. {
                let name = format!("{round}/{writer}/{i}");
                let txn = Txn::new().put(format!("a/{name}"), vec![b'v'; 300]);
                store
                    .commit(txn.put(format!("b/{name}"), ""))
                    .await
                    .unwrap();
                // One write per line, past the test harness, so that a kill cuts no line in two.
                let line = format!("\ndone {name}\n");
                rustix::io::write(std::io::stderr(), line.as_bytes()).unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn every_acknowledged_commit_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        // Kills fall at different distances from the start, the first close to the creation.
        let commits = 1 + 60 * round as usize;
        acknowledged.extend(commit_and_kill(&path, round, commits));
        let store = Embedded::open(&path).unwrap();
        for name in &acknowledged {
            for side in ["a", "b"] {
                let key = format!("{side}/{name}");
                assert!(
                    store.get(&key).await.unwrap().is_some(),
                    "round {round}: {key} is lost"
                );
            }
        }
        let count = async |prefix| store.list(prefix).await.unwrap().entries.len();
        assert_eq!(
            count("a/").await,
            count("b/").await,
            "half a transaction is left"
        );
        assert!(count("a/").await >= acknowledged.len());
    }
}

/// Runs the child until it has acknowledged `commits`, kills it, and returns everything that
/// it acknowledged.
fn commit_and_kill(path: &Path, round: u32, commits: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DATABASE, path)
        .env(ROUND, round.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut names = Vec::new();
    let mut other = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix("done ") {
            Some(name) => names.push(name.to_owned()),
            None => other.push_str(&line),
        }
        if names.len() == commits {
            // What is still in the pipe was acknowledged as well: reading goes on to its end.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(names.len() >= commits, "the child ended by itself: {other}");
    names
}
