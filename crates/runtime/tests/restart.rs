//! The daemon dies and comes back; the shim dies.
#![allow(clippy::unwrap_used, reason = "a failed test shall panic")]

mod common;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{World, collect, read_until};
use runtime::{Inspected, LogQuery, Runtime, Stdio};
use shim::proto;

/// Not a test: the process that is killed in `the_daemon_is_killed`. It starts the container
/// that the variable names, and waits for its death.
#[tokio::test]
#[ignore = "a helper of another test"]
async fn daemon_stand_in() {
    let Ok(file) = std::env::var("KRAUD_TEST_LAUNCH") else {
        return;
    };
    let world = World::new();
    let mut container = world.container(&["sh", "-c", "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.05; done; read x; echo got $x; exit 4"]);
    container.stdio = Stdio {
        open_stdin: true,
        ..Stdio::default()
    };
    container.log_to_file();
    let _attachment = container.start_attached().await;
    let facts = (
        &world.settings.run_dir,
        &world.settings.shim,
        &world.settings.cgroup_parent,
        &container.id,
        &container.state_dir,
        world.path(),
    );
    fs::write(format!("{file}.new"), serde_json::to_vec(&facts).unwrap()).unwrap();
    fs::rename(format!("{file}.new"), file).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn the_daemon_is_killed() {
    let world = World::new();
    let file = world.path().join("facts");
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon_stand_in"])
        .env("KRAUD_TEST_LAUNCH", &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !file.exists() {
        assert!(Instant::now() < deadline, "no container was started");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    let facts: (
        std::path::PathBuf,
        std::path::PathBuf,
        String,
        types::ContainerId,
        std::path::PathBuf,
        std::path::PathBuf,
    ) = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let (run_dir, shim, cgroup_parent, id, state_dir, directory) = facts;
    let settings = runtime::Settings {
        run_dir,
        shim,
        cgroup_parent,
        ..world.settings.clone()
    };
    let again = Runtime::new(settings.clone()).unwrap();
    assert!(again.list().await.unwrap().contains(&id));
    let Inspected::Alive { pid } = again.inspect(&id, &state_dir).await.unwrap() else {
        panic!("it died")
    };
    assert!(again.pids(&id).await.unwrap().contains(&pid));
    let mut attachment = again.attach(&id, common::ALL).await.unwrap();
    attachment
        .input
        .write(Bytes::from("input\n"))
        .await
        .unwrap();
    read_until(&mut attachment, "got input\n").await;
    assert_eq!(again.wait(&id).await.unwrap().code, 4);
    let mut batches = again.logs(&id, state_dir.join("log"), LogQuery::default());
    let mut log = String::new();
    while let Some(batch) = batches.recv().await {
        batch
            .unwrap()
            .iter()
            .for_each(|entry| log.push_str(&String::from_utf8_lossy(&entry.message)));
    }
    let expected: String = (0..60).map(|i| format!("{i}\n")).collect();
    assert_eq!(log, expected + "got input\n");
    assert!(
        matches!(again.inspect(&id, &state_dir).await.unwrap(), Inspected::Exited(exit) if exit.code == 4)
    );
    again.delete(&id).await.unwrap();
    again
        .cgroups()
        .group(&settings.cgroup_parent)
        .destroy()
        .unwrap();
    fs::remove_dir_all(directory).unwrap();
}

/// The parent of `pid`, once the OCI runtime's processes between the two have gone.
async fn shim_of(pid: i32) -> i32 {
    for _ in 0..200 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let parent: i32 = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        if fs::read_to_string(format!("/proc/{parent}/cmdline"))
            .is_ok_and(|command| command.contains("kraud-shim"))
        {
            return parent;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the container is no child of its shim");
}

#[tokio::test]
async fn the_shim_is_killed() {
    let world = World::new();
    let container = world.container(&["sleep", "100"]);
    let pid = container.start().await.unwrap();
    let shim = shim_of(pid).await;
    let started = proto::Started {
        pid: shim,
        start_time: runtime::process::start_time(shim).unwrap(),
    };
    // It ignores what can be ignored.
    assert!(
        runtime::process::signal(started, 15).unwrap()
            && runtime::process::signal(started, 1).unwrap()
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(runtime::process::is_alive(started));
    runtime::process::signal(started, 9).unwrap();
    let exit = world.runtime.wait(&container.id).await.unwrap();
    assert!(exit.lost && exit.code == 255, "{exit:?}");
    assert!(world.runtime.pids(&container.id).await.unwrap().is_empty());
    assert_eq!(
        world
            .runtime
            .inspect(&container.id, &container.state_dir)
            .await
            .unwrap(),
        Inspected::Unknown
    );
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn a_grandchild_keeps_the_streams_open() {
    let world = World::new();
    let container = world.container(&["sleep", "100"]);
    container.start().await.unwrap();
    let begun = Instant::now();
    let (_, attachment) = container
        .exec(
            &["sh", "-c", "sleep 50 & echo started; exit 6"],
            Stdio::default(),
        )
        .await
        .unwrap();
    let outcome = collect(attachment.unwrap()).await;
    assert_eq!((outcome.stdout(), outcome.code()), ("started\n".into(), 6));
    assert!(begun.elapsed() < Duration::from_secs(8));
    world.runtime.delete(&container.id).await.unwrap();
}
