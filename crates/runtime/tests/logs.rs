//! Logs written by the shim and read back.
#![allow(clippy::unwrap_used, reason = "a failed test shall panic")]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::World;
use runtime::{Batches, LogEntry, LogQuery, LogSettings};
use types::Time;

async fn all(mut batches: Batches) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    while let Some(batch) = batches.recv().await {
        entries.extend(batch.unwrap());
    }
    entries
}

fn text(entries: &[LogEntry]) -> String {
    entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.message))
        .collect()
}

#[tokio::test]
async fn both_streams_and_conditions() {
    let world = World::new();
    let mut container = world.container(&[
        "sh",
        "-c",
        "echo a; sleep 0.1; echo b >&2; sleep 0.1; printf c",
    ]);
    let path = container.log_to_file();
    container.log.as_mut().unwrap().attrs = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    container.start().await.unwrap();
    world.runtime.wait(&container.id).await.unwrap();
    let read = async |query| all(world.runtime.logs(&container.id, path.clone(), query)).await;
    let entries = read(LogQuery::default()).await;
    assert_eq!(text(&entries), "a\nb\nc");
    assert_eq!(
        entries.iter().map(|entry| entry.stderr).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(entries[0].attributes, "k=v");
    assert_eq!(
        text(
            &read(LogQuery {
                tail: Some(2),
                ..LogQuery::default()
            })
            .await
        ),
        "b\nc"
    );
    assert_eq!(
        text(
            &read(LogQuery {
                since: Some(entries[1].time),
                ..LogQuery::default()
            })
            .await
        ),
        "b\nc"
    );
    assert_eq!(
        text(
            &read(LogQuery {
                until: Some(entries[1].time),
                ..LogQuery::default()
            })
            .await
        ),
        "a\nb\n"
    );
    assert_eq!(
        text(
            &read(LogQuery {
                since: Some(Time::now()),
                follow: true,
                ..LogQuery::default()
            })
            .await
        ),
        ""
    );
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn following_across_rotations_loses_nothing() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); [ $((i % 100)) = 0 ] && sleep 0.02; done";
    let mut container = world.container(&["sh", "-c", script]);
    let path = container.state_dir.join("log");
    container.log = Some(LogSettings {
        path: path.clone(),
        max_size: Some(20_000),
        max_file: 20,
        attrs: BTreeMap::new(),
    });
    container.start().await.unwrap();
    let followed = world.runtime.logs(
        &container.id,
        path.clone(),
        LogQuery {
            follow: true,
            ..LogQuery::default()
        },
    );
    let followed = tokio::time::timeout(Duration::from_secs(30), all(followed))
        .await
        .unwrap();
    let expected: String = (0..3000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(text(&followed), expected);
    assert!(path.with_extension("5").exists());
    let read = all(world.runtime.logs(&container.id, path, LogQuery::default())).await;
    assert_eq!(text(&read), expected);
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn a_follower_that_goes_away() {
    let world = World::new();
    let mut container = world.container(&["sleep", "100"]);
    let path = container.log_to_file();
    container.start().await.unwrap();
    let follower = world.runtime.logs(
        &container.id,
        path,
        LogQuery {
            follow: true,
            ..LogQuery::default()
        },
    );
    drop(follower);
    world.runtime.delete(&container.id).await.unwrap();
}
