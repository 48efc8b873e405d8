//! The embedded engine against a model that is too simple to be wrong: random transactions,
//! with restarts in between, must give the same answers, records and changes.
#![allow(clippy::unwrap_used, reason = "a failed call is a failed test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use store::{Change, Embedded, Entry, Error, Guard, LeaseId, Op, Revision, Store, Txn};

/// Few keys, so that they meet; close to each other, so that prefixes are tried at their borders.
const KEYS: [&str; 7] = ["a", "a/", "a/1", "a/1/x", "a0", "é", "\u{10ffff}"];
const PREFIXES: [&str; 6] = ["", "a", "a/", "a/1", "é", "\u{10ffff}"];
/// Leases that are granted at the start and may be revoked on the way.
const LEASES: usize = 2;

#[derive(Debug, Clone)]
enum Write {
    Put(&'static str, u8, Option<usize>),
    Delete(&'static str),
    DeletePrefix(&'static str),
}

#[derive(Debug, Clone)]
enum Condition {
    Absent(&'static str),
    Present(&'static str),
    /// The revision that many steps back from the newest.
    Unchanged(&'static str, u64),
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Condition>, Vec<Write>),
    Revoke(usize),
    List(&'static str),
    Restart,
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&KEYS[..])
}

fn prefix() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&PREFIXES[..])
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => (key(), any::<u8>(), prop::option::weighted(0.2, 0..LEASES))
            .prop_map(|(key, value, lease)| Write::Put(key, value, lease)),
        2 => key().prop_map(Write::Delete),
        1 => prefix().prop_map(Write::DeletePrefix),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        key().prop_map(Condition::Absent),
        key().prop_map(Condition::Present),
        (key(), 0..4u64).prop_map(|(key, back)| Condition::Unchanged(key, back)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = prop::collection::vec(write(), 0..4);
    let conditions = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec(condition(), 1..3),
    ];
    prop_oneof![
        20 => (conditions, writes).prop_map(|(conditions, writes)| Step::Commit(conditions, writes)),
        4 => prefix().prop_map(Step::List),
        1 => (0..LEASES).prop_map(Step::Revoke),
        1 => Just(Step::Restart),
    ]
}

/// What the store should be.
#[derive(Debug, Default)]
struct Model {
    revision: Revision,
    records: BTreeMap<String, Entry>,
    leases: Vec<LeaseId>,
    revoked: [bool; LEASES],
}

impl Model {
    fn holds(&self, guard: &Guard) -> bool {
        let modified = |key: &str| self.records.get(key).map(|entry| entry.modified);
        match guard {
            Guard::Absent(key) => modified(key).is_none(),
            Guard::Present(key) => modified(key).is_some(),
            Guard::Unchanged(key, at) => modified(key).unwrap_or(0) == *at,
        }
    }

    fn txn(&self, conditions: &[Condition], writes: &[Write]) -> Txn {
        let guards = conditions.iter().map(|condition| match condition {
            Condition::Absent(key) => Guard::Absent((*key).to_owned()),
            Condition::Present(key) => Guard::Present((*key).to_owned()),
            Condition::Unchanged(key, back) => {
                Guard::Unchanged((*key).to_owned(), self.revision.saturating_sub(*back))
            }
        });
        let ops = writes.iter().map(|write| match write {
            Write::Put(key, value, lease) => Op::Put {
                key: (*key).to_owned(),
                value: vec![*value].into(),
                lease: lease.map(|index| self.leases[index]),
            },
            Write::Delete(key) => Op::Delete {
                key: (*key).to_owned(),
            },
            Write::DeletePrefix(prefix) => Op::DeletePrefix {
                prefix: (*prefix).to_owned(),
            },
        });
        Txn {
            guards: guards.collect(),
            ops: ops.collect(),
        }
    }

    /// Whether the leases of `writes` are there.
    fn is_leased(&self, writes: &[Write]) -> bool {
        writes
            .iter()
            .all(|write| !matches!(write, Write::Put(_, _, Some(index)) if self.revoked[*index]))
    }

    fn apply(&mut self, txn: Txn) -> Vec<Change> {
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for op in txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let created = self.records.get(&key).map_or(revision, |old| old.created);
                    let entry = Entry {
                        key: key.clone(),
                        value,
                        created,
                        modified: revision,
                        lease,
                    };
                    self.records.insert(key, entry.clone());
                    changes.push(Change::Put(entry));
                }
                Op::Delete { key } => {
                    changes.extend(self.remove(revision, |entry| entry.key == key))
                }
                Op::DeletePrefix { prefix } => {
                    changes.extend(self.remove(revision, |entry| entry.key.starts_with(&prefix)));
                }
            }
        }
        self.revision += Revision::from(!changes.is_empty());
        changes
    }

    fn revoke(&mut self, index: usize) -> Vec<Change> {
        self.revoked[index] = true;
        let lease = Some(self.leases[index]);
        let changes = self.remove(self.revision + 1, |entry| entry.lease == lease);
        self.revision += Revision::from(!changes.is_empty());
        changes
    }

    fn remove(&mut self, revision: Revision, doomed: impl Fn(&Entry) -> bool) -> Vec<Change> {
        let gone: Vec<String> = self
            .records
            .values()
            .filter(|entry| doomed(entry))
            .map(|entry| entry.key.clone())
            .collect();
        gone.into_iter()
            .map(|key| {
                self.records.remove(&key);
                Change::Deleted { key, revision }
            })
            .collect()
    }

    fn list(&self, prefix: &str) -> Vec<Entry> {
        self.records
            .values()
            .filter(|entry| entry.key.starts_with(prefix))
            .cloned()
            .collect()
    }
}

async fn play(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut store = Embedded::open(&path).unwrap();
    let mut model = Model::default();
    for _ in 0..LEASES {
        model.leases.push(
            store
                .grant(std::time::Duration::from_secs(600))
                .await
                .unwrap(),
        );
    }
    let mut watch = store.watch("", 0).await.unwrap();
    for step in steps {
        let mut expected = Vec::new();
        match step {
            Step::Commit(conditions, writes) => {
                let txn = model.txn(&conditions, &writes);
                let answer = store.commit(txn.clone()).await;
                if let Some(broken) = txn.guards.iter().find(|guard| !model.holds(guard)) {
                    assert!(
                        matches!(answer, Err(Error::Conflict { .. })),
                        "{broken:?}: {answer:?}"
                    );
                } else if !model.is_leased(&writes) {
                    assert!(matches!(answer, Err(Error::LeaseExpired(_))), "{answer:?}");
                } else {
                    expected = model.apply(txn);
                    assert_eq!(answer.unwrap(), model.revision);
                }
            }
            Step::Revoke(index) => {
                let answer = store.revoke(model.leases[index]).await;
                assert_eq!(answer.is_err(), model.revoked[index], "{answer:?}");
                expected = model.revoke(index);
            }
            Step::List(prefix) => {
                let listing = store.list(prefix).await.unwrap();
                assert_eq!(
                    (listing.revision, listing.entries),
                    (model.revision, model.list(prefix))
                );
            }
            Step::Restart => {
                drop(store);
                assert!(watch.next().await.is_none());
                store = Embedded::open(&path).unwrap();
                watch = store.watch("", 0).await.unwrap();
            }
        }
        for change in expected {
            assert_eq!(watch.next().await.unwrap().unwrap(), change);
        }
    }
    let listing = store.list("").await.unwrap();
    assert_eq!(
        (listing.revision, listing.entries),
        (model.revision, model.list(""))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model(steps in prop::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(steps));
    }
}
