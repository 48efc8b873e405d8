//! Figures, printed: `cargo test -p runtime --release --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "a failed test shall panic")]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::World;
use runtime::LogQuery;

#[tokio::test]
#[ignore = "a measurement"]
async fn start_to_exit() {
    let world = World::new();
    let mut times: Vec<[Duration; 3]> = Vec::new();
    for _ in 0..30 {
        let mut container = world.container(&["true"]);
        container.log_to_file();
        // Such as `seccomp=unconfined`, to see what it costs.
        container.host.security_opt = std::env::var("KRAUD_TEST_SECURITY")
            .ok()
            .map(|option| vec![option]);
        let begun = Instant::now();
        container.start().await.unwrap();
        let started = begun.elapsed();
        world.runtime.wait(&container.id).await.unwrap();
        let ended = begun.elapsed();
        world.runtime.delete(&container.id).await.unwrap();
        times.push([started, ended, begun.elapsed()]);
    }
    for (place, name) in ["start", "to exit", "to deleted"].into_iter().enumerate() {
        let mut column: Vec<Duration> = times.iter().map(|row| row[place]).collect();
        column.sort();
        println!(
            "{name}: median {:?}, best {:?}, worst {:?}",
            column[15], column[0], column[29]
        );
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn memory_of_a_shim() {
    let world = World::new();
    let mut container = world.container(&[
        "sh",
        "-c",
        "head -c 20m /dev/zero | tr '\\0' 'x'; echo; sleep 100",
    ]);
    container.log_to_file();
    let pid = container.start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim: i32 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    status
        .lines()
        .filter(|line| {
            line.starts_with("VmRSS") || line.starts_with("Rss") || line.starts_with("VmHWM")
        })
        .for_each(|line| println!("shim {line}"));
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
#[ignore = "a measurement"]
async fn hundred_megabytes_of_log() {
    let world = World::new();
    let mut container = world.container(&["sh", "-c", "yes 'a line of output as a program might well print it, 72 bytes long, ....' | head -c 100m"]);
    let path = container.log_to_file();
    let begun = Instant::now();
    container.start().await.unwrap();
    world.runtime.wait(&container.id).await.unwrap();
    println!(
        "written in {:?}, {} MB on disk",
        begun.elapsed(),
        fs::metadata(&path).unwrap().len() >> 20
    );
    let begun = Instant::now();
    let mut batches = world.runtime.logs(&container.id, path, LogQuery::default());
    let mut bytes = 0;
    while let Some(batch) = batches.recv().await {
        bytes += batch
            .unwrap()
            .iter()
            .map(|entry| entry.message.len())
            .sum::<usize>();
    }
    println!("read in {:?}, {} MB", begun.elapsed(), bytes >> 20);
    world.runtime.delete(&container.id).await.unwrap();
}
