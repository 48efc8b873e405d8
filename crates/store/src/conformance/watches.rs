//! Watches: order, prefixes, the past, and the seam between past and live.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::next;
use crate::{Change, Revision, Store, Txn, Watch};

fn describe(change: &Change) -> (String, Revision) {
    match change {
        Change::Put(entry) => (format!("+{}", entry.key), entry.modified),
        Change::Deleted { key, revision } => (format!("-{key}"), *revision),
    }
}

async fn take(watch: &mut Watch, count: usize) -> Vec<(String, Revision)> {
    let mut changes = Vec::new();
    for _ in 0..count {
        changes.push(describe(&next(watch).await));
    }
    changes
}

pub(super) async fn a_watch_reports_its_prefix_in_order(store: &dyn Store) {
    store.commit(Txn::new().put("w/old", "1")).await.unwrap();
    let mut watch = store.watch("w/", 0).await.unwrap();
    let first = store
        .commit(Txn::new().put("w/a", "1").put("w0", "1").put("w/b", "1"))
        .await
        .unwrap();
    store
        .commit(Txn::new().put("other", "1").delete("w/gone"))
        .await
        .unwrap();
    let second = store
        .commit(Txn::new().delete("w/old").put("w/a", "2"))
        .await
        .unwrap();
    let expected = [
        ("+w/a", first),
        ("+w/b", first),
        ("-w/old", second),
        ("+w/a", second),
    ];
    let expected = expected.map(|(what, revision)| (what.to_owned(), revision));
    assert_eq!(take(&mut watch, 4).await, expected);
}

pub(super) async fn a_watch_starts_from_the_past(store: &dyn Store) {
    let mut revisions = Vec::new();
    for i in 0..10 {
        revisions.push(
            store
                .commit(Txn::new().put(format!("k/{i}"), ""))
                .await
                .unwrap(),
        );
    }
    for skipped in 1..10 {
        let mut watch = store.watch("k/", revisions[skipped - 1]).await.unwrap();
        let seen = take(&mut watch, 10 - skipped).await;
        let expected: Vec<_> = (skipped..10)
            .map(|i| (format!("+k/{i}"), revisions[i]))
            .collect();
        assert_eq!(seen, expected);
    }
    // A watch at the newest revision goes on with what comes next.
    let mut watch = store.watch("k/", revisions[9]).await.unwrap();
    let new = store.commit(Txn::new().delete("k/3")).await.unwrap();
    assert_eq!(take(&mut watch, 1).await, [("-k/3".to_owned(), new)]);
}

/// Every watch sees every change once, in the same order, that of the revisions.
pub(super) async fn watches_agree_under_concurrent_commits(store: Arc<dyn Store>) {
    const WRITERS: usize = 16;
    const WRITES: usize = 25;
    let mut watches = Vec::new();
    for _ in 0..4 {
        watches.push(store.watch("c/", 0).await.unwrap());
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut committed = Vec::new();
            for i in 0..WRITES {
                let key = format!("c/{writer}/{i}");
                let revision = store.commit(Txn::new().put(key.clone(), "")).await.unwrap();
                committed.push((format!("+{key}"), revision));
            }
            committed
        });
    }
    let mut readers = JoinSet::new();
    for mut watch in watches {
        readers.spawn(async move { take(&mut watch, WRITERS * WRITES).await });
    }
    let mut committed: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    committed.sort_unstable_by_key(|(_, revision)| *revision);
    for seen in readers.join_all().await {
        assert_eq!(seen, committed);
    }
}

/// A listing, continued by the watch from its revision, is at every end what a new listing is.
pub(super) async fn a_listing_and_its_watch_have_no_seam(store: Arc<dyn Store>) {
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let store = store.clone();
        writers.spawn(async move {
            for i in 0..100 {
                // Few keys, so that puts and deletions of one key meet.
                let key = format!("s/{}", (i * 7 + writer) % 10);
                let txn = if i % 3 == 0 {
                    Txn::new().delete(key)
                } else {
                    Txn::new().put(key, i.to_string())
                };
                store.commit(txn).await.unwrap();
            }
        });
    }
    let mut views = Vec::new();
    for _ in 0..10 {
        let listing = store.list("s/").await.unwrap();
        // From revision 0 a watch would start now, not at the listing.
        if listing.revision > 0 {
            let watch = store.watch("s/", listing.revision).await.unwrap();
            let view: BTreeMap<_, _> = listing
                .entries
                .into_iter()
                .map(|entry| (entry.key.clone(), entry))
                .collect();
            views.push((view, watch));
        }
        tokio::task::yield_now().await;
    }
    writers.join_all().await;
    let end = store.commit(Txn::new().put("s/end", "")).await.unwrap();
    let expected = store.list("s/").await.unwrap().entries;
    for (mut view, mut watch) in views {
        loop {
            let (_, revision) = match next(&mut watch).await {
                Change::Put(entry) => (
                    view.insert(entry.key.clone(), entry.clone()),
                    entry.modified,
                ),
                Change::Deleted { key, revision } => {
                    let known = view.remove(&key);
                    assert!(
                        known.is_some(),
                        "{key} is reported as deleted but was not there"
                    );
                    (known, revision)
                }
            };
            if revision == end {
                break;
            }
        }
        assert_eq!(view.into_values().collect::<Vec<_>>(), expected);
    }
}
