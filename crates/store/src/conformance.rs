//! The suite that every engine of the store passes: what callers may rely on, whichever engine
//! they run over. It panics at the first promise that is broken.
//!
//! What only one engine has (how far its history reaches, what survives a restart) is tested
//! with that engine.
#![allow(clippy::unwrap_used, reason = "a failed call is a failed test")]

mod leases;
mod records;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use crate::{Change, Entry, LeaseId, Op, Store, Txn, Watch};

/// Runs the whole suite; `make` gives a new, empty store each time.
pub async fn run<F, S>(make: F)
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Store>>,
{
    records::a_record_lives_and_dies(&*make().await).await;
    records::guards_hold_or_nothing_is_written(&*make().await).await;
    records::only_changes_make_revisions(&*make().await).await;
    records::listings_are_ordered_and_exact(&*make().await).await;
    records::delete_prefix_takes_what_starts_with_it(&*make().await).await;
    records::values_are_any_bytes(&*make().await).await;
    records::empty_keys_are_refused(&*make().await).await;
    records::transactions_are_seen_whole(make().await).await;
    records::a_hundred_writers_count_to_a_hundred(make().await).await;
    watches::a_watch_reports_its_prefix_in_order(&*make().await).await;
    watches::a_watch_starts_from_the_past(&*make().await).await;
    watches::watches_agree_under_concurrent_commits(make().await).await;
    watches::a_listing_and_its_watch_have_no_seam(make().await).await;
    leases::unknown_leases_are_refused(&*make().await).await;
    leases::a_revoked_lease_takes_its_records(&*make().await).await;
    leases::a_plain_write_frees_a_record_from_its_lease(&*make().await).await;
    // These wait for clocks; together they wait once.
    let (expiring, renewed) = (make().await, make().await);
    tokio::join!(
        leases::an_expired_lease_takes_its_records(&*expiring),
        leases::a_renewed_lease_stays(&*renewed),
    );
}

/// Longer than any engine takes for anything here, on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The next change of `watch`, which must come.
async fn next(watch: &mut Watch) -> Change {
    let change = tokio::time::timeout(PATIENCE, watch.next()).await;
    change
        .expect("the watch reports nothing")
        .expect("the watch ended")
        .unwrap()
}

fn put_leased(key: &str, value: &'static str, lease: LeaseId) -> Txn {
    let op = Op::Put {
        key: key.to_owned(),
        value: value.into(),
        lease: Some(lease),
    };
    Txn {
        guards: Vec::new(),
        ops: vec![op],
    }
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store
        .list(prefix)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

async fn entry(store: &dyn Store, key: &str) -> Entry {
    store
        .get(key)
        .await
        .unwrap()
        .unwrap_or_else(|| panic!("{key} is missing"))
}
