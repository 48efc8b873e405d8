//! Containers on the real kernel: starting, streams, exit codes.
#![allow(clippy::unwrap_used, reason = "a failed test shall panic")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{World, collect, read_until};
use runtime::{Error, StartErrorKind, Stdio};

#[tokio::test]
async fn output_and_exit_code() {
    let world = World::new();
    let outcome = world
        .container(&["sh", "-c", "echo out; echo err >&2; exit 7"])
        .run()
        .await;
    assert_eq!(
        (outcome.stdout(), outcome.stderr(), outcome.code()),
        ("out\n".into(), "err\n".into(), 7)
    );
    assert!(!outcome.exit.unwrap().finished_at.is_zero());
}

#[tokio::test]
async fn environment_and_user() {
    let world = World::new();
    let mut container = world.container(&["sh", "-c", "env | sort; id; pwd; hostname"]);
    container.config.env = Some(vec!["A=1".into()]);
    container.config.user = "ada".into();
    container.config.working_dir = "/tmp/deep/er".into();
    let text = container.run().await.stdout();
    for line in [
        "A=1\n",
        "HOME=/tmp\n",
        "HOSTNAME=box\n",
        "uid=1000(ada) gid=100(users)",
        "/tmp/deep/er\n",
        "\nbox\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
}

#[tokio::test]
async fn signals() {
    let world = World::new();
    let container = world.container(&["sleep", "100"]);
    container.start().await.unwrap();
    world.runtime.kill(&container.id, 9, false).await.unwrap();
    let exit = world.runtime.wait(&container.id).await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), false));
    assert!(matches!(
        world.runtime.kill(&container.id, 9, false).await,
        Err(Error::NotRunning(_))
    ));
    // Asked again after the shim has gone.
    assert_eq!(world.runtime.wait(&container.id).await.unwrap().code, 137);
    world.runtime.delete(&container.id).await.unwrap();
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn missing_commands() {
    let world = World::new();
    let expected = [
        (
            "nosuch",
            StartErrorKind::NotFound,
            "exec: \"nosuch\": executable file not found in $PATH: unknown",
        ),
        (
            "/no/such",
            StartErrorKind::NotFound,
            "exec: \"/no/such\": stat /no/such: no such file or directory: unknown",
        ),
        (
            "/etc/passwd",
            StartErrorKind::NotExecutable,
            "exec: \"/etc/passwd\": permission denied: unknown",
        ),
        (
            "/etc",
            StartErrorKind::NotExecutable,
            "exec: \"/etc\": is a directory: permission denied: unknown",
        ),
    ];
    for (command, kind, words) in expected {
        let container = world.container(&[command]);
        let Err(Error::Start(error)) = container.start().await else {
            panic!("{command} was started")
        };
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.ends_with(words), "{error}");
        assert!(
            !world
                .runtime
                .cgroups()
                .group(&world.runtime.cgroup_path(&container.id, ""))
                .exists()
        );
    }
}

#[tokio::test]
async fn terminal() {
    let world = World::new();
    let mut container = world.container(&["sh"]);
    container.stdio = Stdio {
        tty: true,
        open_stdin: true,
        stdin_once: true,
        console_size: Some((91, 33)),
        owner: None,
    };
    let mut attachment = container.start_attached().await;
    attachment
        .input
        .write(Bytes::from("stty size; tty\n"))
        .await
        .unwrap();
    read_until(&mut attachment, "33 91\r\n").await;
    read_until(&mut attachment, "/dev/pts/").await;
    world.runtime.resize(&container.id, 120, 50).await.unwrap();
    attachment
        .input
        .write(Bytes::from("stty size\n"))
        .await
        .unwrap();
    read_until(&mut attachment, "50 120\r\n").await;
    attachment
        .input
        .write(Bytes::from("exit 3\n"))
        .await
        .unwrap();
    assert_eq!(collect(attachment).await.code(), 3);
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn ten_megabytes_through_cat() {
    let world = World::new();
    let mut container = world.container(&["cat"]);
    container.stdio = Stdio {
        open_stdin: true,
        stdin_once: true,
        ..Stdio::default()
    };
    let attachment = container.start_attached().await;
    let sent: Vec<u8> = (0..10 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let input = attachment.input.clone();
    let data = Bytes::from(sent.clone());
    let writer = tokio::spawn(async move {
        input.write(data).await.unwrap();
        input.close().await.unwrap();
    });
    let outcome = collect(attachment).await;
    writer.await.unwrap();
    assert_eq!(outcome.stdout.len(), sent.len());
    assert!(outcome.stdout == sent, "the bytes differ");
    assert_eq!(outcome.code(), 0);
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn input_stays_open_for_the_next_client() {
    let world = World::new();
    let mut container = world.container(&["sh", "-c", "read a; read b; echo $a-$b"]);
    container.stdio = Stdio {
        open_stdin: true,
        ..Stdio::default()
    };
    let first = container.start_attached().await;
    first.input.write(Bytes::from("1\n")).await.unwrap();
    first.input.close().await.unwrap();
    drop(first);
    let mut second = world
        .runtime
        .attach(&container.id, common::ALL)
        .await
        .unwrap();
    second.input.write(Bytes::from("2\n")).await.unwrap();
    read_until(&mut second, "1-2\n").await;
    assert_eq!(world.runtime.wait(&container.id).await.unwrap().code, 0);
    world.runtime.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn exec_sessions() {
    let world = World::new();
    let container = world.container(&["sleep", "100"]);
    container.start().await.unwrap();

    let (exec, attachment) = container
        .exec(
            &["sh", "-c", "echo $FROM; echo e >&2; exit 5"],
            Stdio::default(),
        )
        .await
        .unwrap();
    let outcome = collect(attachment.unwrap()).await;
    assert_eq!(
        (outcome.stdout(), outcome.stderr(), outcome.code()),
        ("exec\n".into(), "e\n".into(), 5)
    );
    assert_eq!(
        world
            .runtime
            .exec_wait(&container.id, &exec)
            .await
            .unwrap()
            .code,
        5
    );

    let stdio = Stdio {
        tty: true,
        open_stdin: true,
        stdin_once: true,
        console_size: Some((80, 25)),
        owner: None,
    };
    let (exec, attachment) = container.exec(&["sh"], stdio).await.unwrap();
    let mut attachment = attachment.unwrap();
    world
        .runtime
        .exec_resize(&container.id, &exec, 81, 26)
        .await
        .unwrap();
    attachment
        .input
        .write(Bytes::from("stty size; exit 9\n"))
        .await
        .unwrap();
    read_until(&mut attachment, "26 81").await;
    assert_eq!(collect(attachment).await.code(), 9);

    let Err(Error::Start(error)) = container.exec(&["nosuch"], Stdio::default()).await else {
        panic!()
    };
    assert_eq!(error.kind, StartErrorKind::NotFound);
    assert_eq!(
        error.message,
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH: unknown"
    );
    world.runtime.delete(&container.id).await.unwrap();
    assert!(matches!(
        container.exec(&["true"], Stdio::default()).await,
        Err(Error::NotRunning(_))
    ));
}

#[tokio::test]
async fn a_vanished_client_harms_nothing() {
    let world = World::new();
    let mut container = world.container(&[
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6; do head -c 200000 /dev/zero; done; sleep 0.2; echo end",
    ]);
    let path = container.log_to_file();
    let attachment = container.start_attached().await;
    drop(attachment);
    let exit = tokio::time::timeout(Duration::from_secs(20), world.runtime.wait(&container.id))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(exit.code, 0);
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.lines().last().unwrap().contains("end\\n"));
    world.runtime.delete(&container.id).await.unwrap();
}
