//! What is special about the embedded engine; the common behaviour is in `conformance`.

use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use super::*;
use crate::{Change, conformance};

/// A store in a directory that vanishes with it.
fn temporary() -> (tempfile::TempDir, Embedded) {
    with(Options::default())
}

fn with(options: Options) -> (tempfile::TempDir, Embedded) {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open_with(&directory.path().join("store.db"), options).unwrap();
    (directory, store)
}

fn put_leased(key: &str, lease: LeaseId) -> Txn {
    let op = Op::Put {
        key: key.to_owned(),
        value: "".into(),
        lease: Some(lease),
    };
    Txn {
        guards: Vec::new(),
        ops: vec![op],
    }
}

fn reason(result: Result<Embedded>) -> String {
    result.err().expect("it was opened").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let directory = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    conformance::run(async || {
        let name = format!("{}.db", made.fetch_add(1, Ordering::Relaxed));
        Arc::new(Embedded::open(&directory.path().join(name)).unwrap()) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn keeps_records_leases_and_the_revision_over_a_restart() {
    let (directory, store) = temporary();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    store.commit(Txn::new().put("a", "0")).await.unwrap();
    let revision = store
        .commit(put_leased("leased", lease).put("a", "1"))
        .await
        .unwrap();
    drop(store);
    let store = Embedded::open(&directory.path().join("store.db")).unwrap();
    let listing = store.list("").await.unwrap();
    assert_eq!((listing.revision, listing.entries.len()), (revision, 2));
    assert_eq!(
        store.get("leased").await.unwrap().unwrap().lease,
        Some(lease)
    );
    store.keep_alive(lease).await.unwrap();
    let another = store.grant(Duration::from_secs(60)).await.unwrap();
    assert_ne!(another, lease, "ids of leases are not used again");
    store.revoke(lease).await.unwrap();
    assert_eq!(store.get("leased").await.unwrap(), None);
    assert_eq!(
        store.commit(Txn::new().put("b", "3")).await.unwrap(),
        revision + 2
    );
    // What was before the restart is compacted, what comes after it is not.
    assert!(matches!(
        store.watch("", revision - 1).await,
        Err(Error::Compacted { .. })
    ));
    store.watch("", revision).await.unwrap();
}

#[tokio::test]
async fn a_lease_gets_its_whole_time_again_after_a_restart_and_then_ends() {
    let (directory, store) = temporary();
    let lease = store.grant(Duration::from_millis(700)).await.unwrap();
    store.commit(put_leased("leased", lease)).await.unwrap();
    drop(store);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let opened = Instant::now();
    let store = Embedded::open(&directory.path().join("store.db")).unwrap();
    let mut watch = store.watch("", 0).await.unwrap();
    assert!(matches!(
        watch.next().await,
        Some(Ok(Change::Deleted { .. }))
    ));
    assert!(opened.elapsed() >= Duration::from_millis(700));
}

#[tokio::test]
async fn history_is_bounded_by_revisions_and_by_bytes() {
    let limits = [
        HistoryLimit {
            revisions: 10,
            bytes: usize::MAX,
        },
        HistoryLimit {
            revisions: usize::MAX,
            bytes: 10 * 1200,
        },
    ];
    for history in limits {
        let (_directory, store) = with(Options {
            history,
            durability: Durability::Normal,
        });
        for i in 0..30 {
            store
                .commit(Txn::new().put(format!("k/{i}"), vec![0; 1000]))
                .await
                .unwrap();
        }
        assert!(matches!(
            store.watch("", 5).await,
            Err(Error::Compacted { revision: 5 })
        ));
        let mut watch = store.watch("", 21).await.unwrap();
        for revision in 22..=30 {
            match watch.next().await {
                Some(Ok(Change::Put(entry))) => assert_eq!(entry.modified, revision),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_watcher_that_sleeps_is_told_that_it_missed_something() {
    let history = HistoryLimit {
        revisions: 10,
        bytes: usize::MAX,
    };
    let (_directory, store) = with(Options {
        history,
        durability: Durability::Normal,
    });
    let mut asleep = store.watch("", 0).await.unwrap();
    for i in 0..500 {
        store
            .commit(Txn::new().put("k", i.to_string()))
            .await
            .unwrap();
    }
    let mut last = 0;
    let error = loop {
        match asleep.next().await {
            Some(Ok(Change::Put(entry))) => {
                assert_eq!(entry.modified, last + 1, "a gap without an error");
                last = entry.modified;
            }
            Some(Err(error)) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(
        matches!(error, Error::Compacted { revision } if revision == last),
        "{error}"
    );
    assert!(asleep.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_with_the_store_and_after_its_last_change() {
    let (_directory, store) = temporary();
    let mut watch = store.watch("", 0).await.unwrap();
    store.commit(Txn::new().put("a", "1")).await.unwrap();
    drop(store);
    assert!(matches!(watch.next().await, Some(Ok(Change::Put(_)))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn dropping_folds_the_log_into_the_file_and_lets_go() {
    let (directory, store) = temporary();
    store.commit(Txn::new().put("a", "1")).await.unwrap();
    let path = directory.path().join("store.db");
    let error = reason(Embedded::open(&path));
    assert!(
        error.contains(&format!("in use by process {}", std::process::id())),
        "{error}"
    );
    drop(store);
    assert!(!directory.path().join("store.db-wal").exists());
    Embedded::open(&path).unwrap();
}

#[test]
fn refuses_what_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let set = |sql: &str| {
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(sql)
            .unwrap()
    };

    drop(Embedded::open(&path).unwrap());
    set("PRAGMA user_version = 99");
    assert!(reason(Embedded::open(&path)).contains("newer kraud"));

    std::fs::remove_file(&path).unwrap();
    set("CREATE TABLE bookmarks (url TEXT)");
    assert!(reason(Embedded::open(&path)).contains("another program"));

    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert!(reason(Embedded::open(&path)).contains("not a database"));
    assert!(reason(Embedded::open(directory.path())).contains("opening"));
}

#[test]
fn makes_its_directory_and_keeps_others_out() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er/store.db");
    let _store = Embedded::open(&path).unwrap();
    for name in ["store.db", "store.db-wal", "store.db-shm", "store.db.lock"] {
        let mode = path
            .with_file_name(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(
        path.parent()
            .unwrap()
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

/// One member that SQLite refuses fails alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_sqlite_refuses_fails_alone() {
    let (directory, store) = temporary();
    let path = directory.path().join("store.db");
    // A trigger stands for a full disk and the like: SQLite fails in the middle of a batch.
    drop(store);
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON records WHEN NEW.key = 'bad'
             BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        .unwrap();
    let store = Arc::new(Embedded::open(&path).unwrap());
    let mut commits = tokio::task::JoinSet::new();
    for i in 0..50 {
        let store = store.clone();
        commits.spawn(async move {
            let key = if i % 10 == 0 {
                "bad".to_owned()
            } else {
                format!("good/{i}")
            };
            store
                .commit(Txn::new().put(format!("first/{i}"), "").put(key, ""))
                .await
        });
    }
    let (good, bad): (Vec<_>, Vec<_>) = commits
        .join_all()
        .await
        .into_iter()
        .partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (45, 5));
    for prefix in ["first/", "good/"] {
        assert_eq!(
            store.list(prefix).await.unwrap().entries.len(),
            45,
            "{prefix}"
        );
    }
    assert_eq!(store.list("").await.unwrap().revision, 45);
}
