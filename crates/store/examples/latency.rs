//! Measures what a commit and a read cost: `cargo run --release -p store --example latency -- DIR`.
//!
//! Prints the time of one commit alone, commits per second with many writers (group commit),
//! and the time of reads, for each durability. DIR should be on the disk that is asked about.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::embedded::{Durability, Options};
use store::{Embedded, Store, Txn};

const COMMITS: usize = 300;
const WRITERS: usize = 64;
const VALUE_BYTES: usize = 4096;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    for durability in [Durability::Full, Durability::Normal] {
        let path = Path::new(&directory).join(format!("latency-{}", std::process::id()));
        let options = Options {
            durability,
            ..Options::default()
        };
        let store = Arc::new(Embedded::open_with(&path.join("store.db"), options)?);
        println!("{durability:?}");
        alone(&store).await?;
        together(store.clone()).await?;
        reads(&store).await?;
        drop(store);
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "  {what}: median {:?}, p90 {:?}, p99 {:?}",
        at(50),
        at(90),
        at(99)
    );
}

async fn alone(store: &Embedded) -> store::Result<()> {
    let mut times = Vec::new();
    for i in 0..COMMITS {
        let started = Instant::now();
        store
            .commit(Txn::new().put(format!("k/{i}"), vec![b'v'; VALUE_BYTES]))
            .await?;
        times.push(started.elapsed());
    }
    report("one commit alone", times);
    Ok(())
}

async fn together(store: Arc<Embedded>) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for i in 0..COMMITS / 4 {
                let key = format!("w/{writer}/{i}");
                store
                    .commit(Txn::new().put(key, vec![b'v'; VALUE_BYTES]))
                    .await?;
            }
            store::Result::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let commits = WRITERS * (COMMITS / 4);
    println!(
        "  {WRITERS} writers: {:.0} commits/s",
        commits as f64 / started.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn reads(store: &Embedded) -> store::Result<()> {
    let mut gets = Vec::new();
    for i in 0..COMMITS {
        let started = Instant::now();
        store.get(&format!("k/{i}")).await?;
        gets.push(started.elapsed());
    }
    report("get of 4 KiB", gets);
    let mut lists = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        store.list("k/").await?;
        lists.push(started.elapsed());
    }
    report("list of 300 x 4 KiB", lists);
    Ok(())
}
