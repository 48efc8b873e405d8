//! Containers on the real kernel: limits, freezing, counters, removal.
#![allow(clippy::unwrap_used, reason = "a failed test shall panic")]

mod common;

use std::{fs, time::Duration};

use bytes::Bytes;
use common::{World, collect, read_until};
use runtime::{
    Inspected, Stdio,
    bundle::{BundleMount, MountKind},
};
use types::container::{Resources, Ulimit};

#[tokio::test]
async fn out_of_memory() {
    let world = World::new();
    let mut container = world.container(&["sh", "-c", "head -c 100m /dev/zero | tail"]);
    container.config.cmd = Some(["tail", "/dev/zero"].map(str::to_owned).to_vec());
    container.host.resources.memory = 16 << 20;
    let outcome = container.run().await;
    let exit = outcome.exit.unwrap();
    assert!(exit.oom, "{exit:?}");
    assert_eq!(exit.code, 137);
}

#[tokio::test]
async fn limits_are_set_and_changed() {
    let world = World::new();
    let mut container = world.container(&["sleep", "100"]);
    container.host.resources = Resources {
        memory: 64 << 20,
        nano_cpus: 500_000_000,
        pids_limit: Some(50),
        cpu_shares: 512,
        ..Resources::default()
    };
    container.start().await.unwrap();
    let stats = world.runtime.stats(&container.id).await.unwrap();
    assert_eq!(
        (stats.memory_limit, stats.pids_limit),
        (Some(64 << 20), Some(50))
    );
    assert!(
        stats.pids_current >= 1
            && stats.memory_usage > 0
            && stats.system_cpu_ns > 0
            && stats.online_cpus > 0
    );
    let raised = Resources {
        memory: 256 << 20,
        memory_swap: 512 << 20,
        pids_limit: Some(70),
        ..Resources::default()
    };
    world.runtime.update(&container.id, &raised).await.unwrap();
    let stats = world.runtime.stats(&container.id).await.unwrap();
    assert_eq!(
        (stats.memory_limit, stats.pids_limit),
        (Some(256 << 20), Some(70))
    );
    let lowered = Resources {
        memory: 32 << 20,
        memory_swap: 64 << 20,
        ..Resources::default()
    };
    world.runtime.update(&container.id, &lowered).await.unwrap();
    assert_eq!(
        world
            .runtime
            .stats(&container.id)
            .await
            .unwrap()
            .memory_limit,
        Some(32 << 20)
    );
    assert!(
        world
            .runtime
            .interface_stats(&container.id)
            .await
            .unwrap()
            .is_empty()
    );
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn pause_and_unpause() {
    let world = World::new();
    let mut container = world.container(&["sh", "-c", "while read x; do echo $x; done"]);
    container.stdio = Stdio {
        open_stdin: true,
        ..Stdio::default()
    };
    let mut attachment = container.start_attached().await;
    world.runtime.pause(&container.id).await.unwrap();
    assert!(world.runtime.is_paused(&container.id).await.unwrap());
    attachment
        .input
        .write(Bytes::from("frozen\n"))
        .await
        .unwrap();
    let early = tokio::time::timeout(
        Duration::from_millis(300),
        read_until(&mut attachment, "frozen"),
    )
    .await;
    assert!(early.is_err());
    world.runtime.unpause(&container.id).await.unwrap();
    read_until(&mut attachment, "frozen").await;
    // A frozen container can be removed.
    world.runtime.pause(&container.id).await.unwrap();
    world.runtime.delete(&container.id).await.unwrap();
    assert_eq!(collect(attachment).await.code(), 137);
}

#[tokio::test]
async fn nothing_is_left() {
    let world = World::new();
    let container = world.container(&["sh", "-c", "sleep 1000 & sleep 1000 & wait"]);
    let pid = container.start().await.unwrap();
    let group = world
        .runtime
        .cgroups()
        .group(&world.runtime.cgroup_path(&container.id, ""));
    while world.runtime.pids(&container.id).await.unwrap().len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.runtime.delete(&container.id).await.unwrap();
    assert!(!group.exists());
    assert!(
        !fs::exists(format!("/proc/{pid}/exe")).unwrap()
            || runtime::process::start_time(pid).is_none()
    );
    assert!(!fs::exists(world.settings.run_dir.join("c").join(container.id.as_str())).unwrap());
    assert_eq!(
        fs::read_dir(world.settings.run_dir.join("crun"))
            .unwrap()
            .filter(|entry| !entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.'))
            .count(),
        0
    );
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(world.path().to_str().unwrap()), "{mounts}");
    // It was killed, and that is known.
    let known = world
        .runtime
        .inspect(&container.id, &container.state_dir)
        .await
        .unwrap();
    assert!(
        matches!(known, Inspected::Exited(exit) if exit.code == 137),
        "{known:?}"
    );
}

#[tokio::test]
async fn mounts_and_security() {
    let world = World::new();
    let shared = world.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "content\n").unwrap();
    let script = "cat /data/file; touch /data/new 2>&1; echo x > /scratch/x && cat /scratch/x; touch /r 2>&1; \
                  grep -c . /proc/keys; ls /dev | sort | tr '\\n' ' '; grep Cap /proc/self/status; grep Seccomp: /proc/self/status; \
                  df /dev/shm | tail -1; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; grep -E 'NoNew|SigBlk' /proc/self/status; \
                  mount -t tmpfs x /tmp 2>&1; cat /proc/sys/kernel/msgmax; ls /sys/fs/cgroup; awk '{print $2, $4}' /proc/mounts";
    let mut container = world.container(&["sh", "-c", script]);
    container.host.readonly_rootfs = true;
    container.host.security_opt = Some(vec!["no-new-privileges".into()]);
    container.host.sysctls = Some([("kernel.msgmax".to_owned(), "12345".to_owned())].into());
    container.host.resources.ulimits = Some(vec![Ulimit {
        name: "nofile".into(),
        soft: 777,
        hard: 888,
    }]);
    container.mounts = vec![
        BundleMount {
            target: "/data".into(),
            read_only: true,
            kind: MountKind::Bind {
                source: shared,
                recursive: true,
                propagation: String::new(),
                recursive_read_only: true,
            },
        },
        BundleMount {
            target: "/scratch".into(),
            read_only: false,
            kind: MountKind::Tmpfs {
                options: vec!["size=1m".into()],
            },
        },
    ];
    let outcome = container.run().await;
    let text = outcome.stdout();
    let expected = [
        "content\n",
        "/data/new: Read-only file system",
        "\nx\n",
        "/r: Read-only file system",
        "\n0\n",
        "console",
        "NoNewPrivs:\t1",
        "CapEff:\t00000000a80425fb",
        "Seccomp:\t2",
        "\n777\n",
        "\n0\n",
        "SigBlk:\t0000000000000000",
        "permission denied",
        "\n12345\n",
        "65536",
    ];
    for part in expected {
        let part = if part == "console" {
            "fd full mqueue null ptmx pts random shm"
        } else {
            part
        };
        assert!(
            text.contains(part),
            "{part:?} is missing in {text} {}",
            outcome.stderr()
        );
    }
}

#[tokio::test]
async fn privileged_and_init() {
    let world = World::new();
    let mut container = world.container(&[
        "sh",
        "-c",
        "tr '\\0' ' ' < /proc/1/cmdline; echo; mount -t tmpfs x /tmp && echo mounted; ls /dev/kmsg",
    ]);
    container.host.privileged = true;
    container.host.init = Some(true);
    let outcome = container.run().await;
    assert!(
        outcome.stdout().starts_with("/sbin/docker-init -- sh -c"),
        "{outcome:?}"
    );
    assert!(
        outcome.stdout().contains("\nmounted\n/dev/kmsg\n"),
        "{} {}",
        outcome.stdout(),
        outcome.stderr()
    );
}

#[tokio::test]
async fn the_filter_is_the_same_when_it_is_reused() {
    let world = World::new();
    let script = "grep Seccomp: /proc/self/status; unshare -m true 2>&1; dmesg 2>&1 | head -1";
    let first = world.container(&["sh", "-c", script]).run().await.stdout();
    assert!(
        first.contains("Seccomp:\t2") && first.contains("Operation not permitted"),
        "{first}"
    );
    // The first one is learnt in the background.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..2 {
        assert_eq!(
            world.container(&["sh", "-c", script]).run().await.stdout(),
            first
        );
    }
    // Another profile is another filter.
    let mut unconfined = world.container(&["grep", "Seccomp:", "/proc/self/status"]);
    unconfined.host.security_opt = Some(vec!["seccomp=unconfined".into()]);
    assert_eq!(unconfined.run().await.stdout(), "Seccomp:\t0\n");
}
