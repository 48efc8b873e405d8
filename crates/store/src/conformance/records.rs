//! Records, guards, transactions, listings.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{entry, keys};
use crate::{Error, Guard, Revision, Store, Txn};

pub(super) async fn a_record_lives_and_dies(store: &dyn Store) {
    assert_eq!(store.get("a").await.unwrap(), None);
    let created = store.commit(Txn::new().put("a", "1")).await.unwrap();
    let first = entry(store, "a").await;
    assert_eq!((first.value.as_ref(), first.lease), (b"1".as_ref(), None));
    assert_eq!((first.created, first.modified), (created, created));

    let modified = store.commit(Txn::new().put("a", "2")).await.unwrap();
    assert!(modified > created);
    let second = entry(store, "a").await;
    assert_eq!((second.created, second.modified), (created, modified));

    store.commit(Txn::new().delete("a")).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    let again = store.commit(Txn::new().put("a", "3")).await.unwrap();
    assert_eq!(
        entry(store, "a").await.created,
        again,
        "a deleted key starts anew"
    );
}

pub(super) async fn guards_hold_or_nothing_is_written(store: &dyn Store) {
    let revision = store.commit(Txn::new().put("here", "1")).await.unwrap();
    let holding = [
        Guard::Absent("gone".to_owned()),
        Guard::Present("here".to_owned()),
        Guard::Unchanged("here".to_owned(), revision),
        Guard::Unchanged("gone".to_owned(), 0),
    ];
    for guard in holding.clone() {
        store
            .commit(Txn::new().when(guard).put("written", "yes"))
            .await
            .unwrap();
    }
    let broken = [
        (Guard::Absent("here".to_owned()), "here"),
        (Guard::Present("gone".to_owned()), "gone"),
        (Guard::Unchanged("here".to_owned(), revision + 1), "here"),
        (Guard::Unchanged("here".to_owned(), 0), "here"),
        (Guard::Unchanged("gone".to_owned(), revision), "gone"),
    ];
    let before = store.list("").await.unwrap();
    for (guard, culprit) in broken {
        // Behind guards that hold, so that every one counts.
        let guards = holding.iter().cloned().chain([guard.clone()]).collect();
        let txn = Txn {
            guards,
            ops: Vec::new(),
        }
        .put("other", "no")
        .delete("here");
        match store.commit(txn).await {
            Err(Error::Conflict { key }) => assert_eq!(key, culprit, "{guard:?}"),
            other => panic!("{guard:?} gave {other:?}"),
        }
    }
    let after = store.list("").await.unwrap();
    assert_eq!(
        (after.revision, after.entries),
        (before.revision, before.entries)
    );
}

pub(super) async fn only_changes_make_revisions(store: &dyn Store) {
    let first = store
        .commit(Txn::new().put("a", "1").put("b", "1"))
        .await
        .unwrap();
    assert_eq!(
        entry(store, "a").await.modified,
        entry(store, "b").await.modified
    );
    let nothing = Txn::new().delete("gone").delete_prefix("gone/");
    assert_eq!(store.commit(nothing).await.unwrap(), first);
    let guarded = Txn::new().when(Guard::Present("a".to_owned()));
    assert_eq!(store.commit(guarded).await.unwrap(), first);
    let second = store.commit(Txn::new().put("a", "1")).await.unwrap();
    assert!(second > first, "writing the same value is a change");
    assert_eq!(store.list("a").await.unwrap().revision, second);
    assert_eq!(store.list("nothing").await.unwrap().revision, second);
}

/// Keys around the borders of prefixes, in the order of their bytes.
const BORDERS: [&str; 16] = [
    "A",
    "a",
    "a\u{1}",
    "a.",
    "a/",
    "a/1",
    "a/10",
    "a/2",
    "a/b/c",
    "a0",
    "ab",
    "a\u{7f}",
    "a\u{80}",
    "é",
    "日本/語",
    "\u{10ffff}x",
];

pub(super) async fn listings_are_ordered_and_exact(store: &dyn Store) {
    for key in BORDERS.iter().rev() {
        store.commit(Txn::new().put(*key, "")).await.unwrap();
    }
    let extra = ["", "b", "日", "日本/", "\u{10ffff}", "a/1", "%", "a_", "A%"];
    for prefix in BORDERS.iter().chain(&extra) {
        let expected: Vec<_> = BORDERS
            .iter()
            .filter(|key| key.starts_with(prefix))
            .collect();
        assert_eq!(
            keys(store, prefix).await.iter().collect::<Vec<_>>(),
            expected,
            "{prefix:?}"
        );
    }
}

pub(super) async fn delete_prefix_takes_what_starts_with_it(store: &dyn Store) {
    for prefix in ["a/", "a", "日", "\u{10ffff}", "none", ""] {
        let fill = BORDERS
            .iter()
            .fold(Txn::new(), |txn, key| txn.put(*key, ""));
        let filled = store.commit(fill).await.unwrap();
        let mut watch = store.watch("", filled).await.unwrap();
        store
            .commit(Txn::new().delete_prefix(prefix))
            .await
            .unwrap();
        let (gone, left): (Vec<_>, Vec<_>) = BORDERS
            .iter()
            .map(|key| (*key).to_owned())
            .partition(|key| key.starts_with(prefix));
        assert_eq!(keys(store, "").await, left, "{prefix:?}");
        let mut reported = Vec::new();
        while reported.len() < gone.len() {
            match super::next(&mut watch).await {
                crate::Change::Deleted { key, .. } => reported.push(key),
                other => panic!("{prefix:?}: {other:?}"),
            }
        }
        reported.sort_unstable();
        assert_eq!(reported, gone, "{prefix:?}");
    }
}

pub(super) async fn values_are_any_bytes(store: &dyn Store) {
    let every: Vec<u8> = (0..=u8::MAX).collect();
    // So that the revision before is not 0, which would mean "now" to a watch.
    store.commit(Txn::new().put("first", "")).await.unwrap();
    // etcd takes 1.5 MiB in a request.
    for value in [Vec::new(), vec![0], every, vec![0xa5; 1 << 20]] {
        let value = Bytes::from(value);
        let before = store
            .commit(Txn::new().put("value", value.clone()))
            .await
            .unwrap();
        assert_eq!(entry(store, "value").await.value, value);
        assert_eq!(store.list("value").await.unwrap().entries[0].value, value);
        let mut watch = store.watch("value", before - 1).await.unwrap();
        match super::next(&mut watch).await {
            crate::Change::Put(entry) => assert_eq!(entry.value, value),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) async fn empty_keys_are_refused(store: &dyn Store) {
    for txn in [
        Txn::new().put("", "1"),
        Txn::new().delete(""),
        Txn::new().when(Guard::Absent(String::new())).put("a", "1"),
    ] {
        assert!(matches!(store.commit(txn).await, Err(Error::Engine { .. })));
    }
    assert_eq!(keys(store, "").await, Vec::<String>::new());
}

/// A reader never sees one half of a transaction.
pub(super) async fn transactions_are_seen_whole(store: Arc<dyn Store>) {
    let writing = store.clone();
    let writer = tokio::spawn(async move {
        for i in 0..200 {
            let value = i.to_string();
            writing
                .commit(Txn::new().put("pair/a", value.clone()).put("pair/b", value))
                .await
                .unwrap();
        }
    });
    while !writer.is_finished() {
        let listing = store.list("pair/").await.unwrap();
        if let [a, b] = &listing.entries[..] {
            assert_eq!((&a.value, a.modified), (&b.value, b.modified));
            assert!(a.modified <= listing.revision);
        } else {
            assert!(listing.entries.is_empty(), "{listing:?}");
        }
    }
    writer.await.unwrap();
}

pub(super) async fn a_hundred_writers_count_to_a_hundred(store: Arc<dyn Store>) {
    store.commit(Txn::new().put("counter", "0")).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        writers.spawn(async move { increment(&*store).await });
    }
    let mut revisions: Vec<Revision> = writers.join_all().await;
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(
        revisions.len(),
        100,
        "every increment has a revision of its own"
    );
    assert_eq!(entry(&*store, "counter").await.value, "100");
}

/// Adds one to the counter by compare and swap, however often that takes.
async fn increment(store: &dyn Store) -> Revision {
    loop {
        let current = entry(store, "counter").await;
        let count: u32 = std::str::from_utf8(&current.value)
            .unwrap()
            .parse()
            .unwrap();
        let txn = Txn::new()
            .when(Guard::Unchanged("counter".to_owned(), current.modified))
            .put("counter", (count + 1).to_string());
        match store.commit(txn).await {
            Ok(revision) => {
                let seen = entry(store, "counter").await.modified;
                assert!(
                    seen >= revision,
                    "a committed write is seen by every later read"
                );
                return revision;
            }
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
