//! Leases: what ends them, and what goes with them. Times are whole seconds, as etcd's are.

use std::time::{Duration, Instant};

use super::{entry, next, put_leased};
use crate::{Change, Error, LeaseId, Store, Txn};

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

fn is_expired<T>(result: &Result<T, Error>, lease: LeaseId) -> bool {
    matches!(result, Err(Error::LeaseExpired(expired)) if *expired == lease)
}

/// Nothing works on a lease that has ended, and nothing is written with it.
async fn is_gone(store: &dyn Store, lease: LeaseId) {
    assert!(is_expired(&store.keep_alive(lease).await, lease));
    assert!(is_expired(&store.revoke(lease).await, lease));
    let txn = put_leased("late", "no", lease).put("beside", "no");
    assert!(is_expired(&store.commit(txn).await, lease));
    assert_eq!(store.get("late").await.unwrap(), None);
    assert_eq!(store.get("beside").await.unwrap(), None);
}

pub(super) async fn unknown_leases_are_refused(store: &dyn Store) {
    is_gone(store, LeaseId(0x7777_7777)).await;
    let (one, other) = (
        store.grant(LONG).await.unwrap(),
        store.grant(LONG).await.unwrap(),
    );
    assert_ne!(one, other);
}

pub(super) async fn a_revoked_lease_takes_its_records(store: &dyn Store) {
    let lease = store.grant(LONG).await.unwrap();
    let kept = store.grant(LONG).await.unwrap();
    store.commit(put_leased("l/a", "1", lease)).await.unwrap();
    store.commit(put_leased("l/b", "1", lease)).await.unwrap();
    store.commit(put_leased("l/kept", "1", kept)).await.unwrap();
    let before = store.commit(Txn::new().put("l/plain", "1")).await.unwrap();
    assert_eq!(entry(store, "l/a").await.lease, Some(lease));
    store.revoke(lease).await.unwrap();
    assert_eq!(super::keys(store, "l/").await, ["l/kept", "l/plain"]);
    let mut watch = store.watch("l/", before).await.unwrap();
    let mut deleted = Vec::new();
    for _ in 0..2 {
        match next(&mut watch).await {
            Change::Deleted { key, revision } => {
                assert!(revision > before);
                deleted.push(key);
            }
            other => panic!("{other:?}"),
        }
    }
    deleted.sort_unstable();
    assert_eq!(deleted, ["l/a", "l/b"]);
    is_gone(store, lease).await;
}

pub(super) async fn a_plain_write_frees_a_record_from_its_lease(store: &dyn Store) {
    let lease = store.grant(LONG).await.unwrap();
    let other = store.grant(LONG).await.unwrap();
    store.commit(put_leased("freed", "1", lease)).await.unwrap();
    store.commit(Txn::new().put("freed", "2")).await.unwrap();
    store.commit(put_leased("moved", "1", lease)).await.unwrap();
    store.commit(put_leased("moved", "2", other)).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(entry(store, "freed").await.lease, None);
    assert_eq!(entry(store, "moved").await.lease, Some(other));
}

pub(super) async fn an_expired_lease_takes_its_records(store: &dyn Store) {
    let mut watch = store.watch("e/", 0).await.unwrap();
    let granted = Instant::now();
    let lease = store.grant(SHORT).await.unwrap();
    store.commit(put_leased("e/a", "1", lease)).await.unwrap();
    assert!(matches!(next(&mut watch).await, Change::Put(_)));
    match next(&mut watch).await {
        Change::Deleted { key, .. } => assert_eq!(key, "e/a"),
        other => panic!("{other:?}"),
    }
    assert!(granted.elapsed() >= SHORT, "it ended early");
    assert_eq!(store.get("e/a").await.unwrap(), None);
    is_gone(store, lease).await;
}

pub(super) async fn a_renewed_lease_stays(store: &dyn Store) {
    // Much longer than the pause, so that a busy machine does not miss it.
    let ttl = 3 * SHORT;
    let lease = store.grant(ttl).await.unwrap();
    store.commit(put_leased("kept", "1", lease)).await.unwrap();
    let started = Instant::now();
    while started.elapsed() < ttl + SHORT {
        tokio::time::sleep(SHORT / 4).await;
        store.keep_alive(lease).await.unwrap();
        assert_eq!(entry(store, "kept").await.lease, Some(lease));
    }
    store.revoke(lease).await.unwrap();
}
