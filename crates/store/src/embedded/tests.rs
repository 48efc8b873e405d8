//! What is special about the embedded engine; the common behaviour is in `conformance`.

use super::*;


/// A store in a directory that vanishes with it.
fn temporary() -> (tempfile::TempDir, Embedded) {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.db")).unwrap();
    (directory, store)
}

#[tokio::test]
async fn keeps_records_leases_and_the_revision_over_a_restart() {
    let (directory, store) = temporary();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let mut txn = Txn::new().put("a", "1");
    txn.ops.push(Op::Put {
        key: "leased".to_owned(),
        value: "2".into(),
        lease: Some(lease),
    });
    let revision = store.commit(txn).await.unwrap();
    drop(store);
    let store = Embedded::open(&directory.path().join("store.db")).unwrap();
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.revision, revision);
    assert_eq!(listing.entries.len(), 2);
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
}
