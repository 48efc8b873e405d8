//! A runtime of the test's own: run directory, control group, busybox root file system.
#![allow(unreachable_pub, dead_code, reason = "shared by several test binaries")]
#![allow(clippy::unwrap_used, reason = "a failed test shall panic")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use futures_util::StreamExt as _;
use runtime::{
    AttachOptions, Attachment, ExecLaunch, ExitInfo, Frame, Launch, LogSettings, Runtime, Settings,
    Stdio,
    bundle::{self, BundleInput, BundleMount, ExecInput, Namespace, Shm},
    user::ResolvedUser,
};
use tempfile::TempDir;
use types::{Config, ContainerId, ExecId, HostConfig};

/// The shim's binary, built from this checkout.
pub fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        // Such as an optimised one, to measure.
        if let Some(path) = std::env::var_os("KRAUD_TEST_SHIM") {
            return path.into();
        }
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "-q", "-p", "shim", "--target-dir"])
            .arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "build the shim");
        profile.join("kraud-shim")
    })
}

pub const ALL: AttachOptions = AttachOptions {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// One instance; everything of it goes with it.
pub struct World {
    pub runtime: Runtime,
    pub settings: Settings,
    directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let unique = directory
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('.')
            .to_owned();
        let settings = Settings {
            run_dir: directory.path().join("run"),
            shim: shim().to_owned(),
            runtimes: BTreeMap::from([("crun".into(), "/usr/bin/crun".into())]),
            default_runtime: "crun".into(),
            cgroup_parent: format!("/kraud-test-{unique}"),
            // Any of the small inits that kraud itself looks for.
            init: ["docker-init", "tini-static", "tini"]
                .iter()
                .map(|name| Path::new("/usr/bin").join(name))
                .find(|path| path.exists()),
        };
        make_rootfs(&directory.path().join("rootfs"));
        Self {
            runtime: Runtime::new(settings.clone()).unwrap(),
            settings,
            directory,
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A container of this world, not started yet.
    pub fn container(&self, command: &[&str]) -> Container<'_> {
        let id = ContainerId::random();
        let state_dir = self.path().join(id.short());
        fs::create_dir(&state_dir).unwrap();
        let config = Config {
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            ..Config::default()
        };
        Container {
            world: self,
            id,
            state_dir,
            config,
            host: HostConfig::default(),
            stdio: Stdio::default(),
            wait_attach: false,
            log: None,
            mounts: Vec::new(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        let parent = self.settings.cgroup_parent.clone();
        let _ = self.runtime.cgroups().group(&parent).destroy();
    }
}

fn make_rootfs(root: &Path) {
    for directory in ["bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nada:x:1000:100::/tmp:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\n").unwrap();
}

/// A container; change its fields, then start it.
pub struct Container<'a> {
    pub world: &'a World,
    pub id: ContainerId,
    pub state_dir: PathBuf,
    pub config: Config,
    pub host: HostConfig,
    pub stdio: Stdio,
    pub wait_attach: bool,
    pub log: Option<LogSettings>,
    pub mounts: Vec<BundleMount>,
}

impl Container<'_> {
    pub fn launch(&self) -> Launch {
        let mut config = self.config.clone();
        config.tty = self.stdio.tty;
        let cgroup = self.world.runtime.cgroup_path(&self.id, "");
        let spec = bundle::build(&BundleInput {
            id: &self.id,
            config: &config,
            host: &self.host,
            rootfs: &self.world.path().join("rootfs"),
            hostname: "box",
            network: Namespace::Private,
            pid: Namespace::Private,
            ipc: Namespace::Private,
            uts: Namespace::Private,
            users: None,
            bound_devices: &[],
            user: &runtime::user::resolve(&self.world.path().join("rootfs"), &config.user, &[])
                .unwrap(),
            mounts: &self.mounts,
            hosts_file: None,
            hostname_file: None,
            resolv_conf: None,
            shm: Shm::default(),
            extra_env: &[],
            cgroup_path: &cgroup,
            cgroups: self.world.runtime.cgroups(),
            init: self.world.settings.init.as_deref(),
        })
        .unwrap();
        Launch {
            id: self.id.clone(),
            spec,
            runtime: String::new(),
            stdio: self.stdio,
            log: self.log.clone(),
            state_dir: self.state_dir.clone(),
            wait_attach: self.wait_attach,
        }
    }

    pub async fn start(&self) -> runtime::Result<i32> {
        Ok(self.world.runtime.start(self.launch()).await?.pid)
    }

    /// Starts it with everything attached from the first byte.
    pub async fn start_attached(&mut self) -> Attachment {
        self.wait_attach = true;
        let runtime = &self.world.runtime;
        let (started, attachment) = tokio::join!(runtime.start(self.launch()), async {
            tokio::task::yield_now().await;
            runtime.attach(&self.id, ALL).await
        });
        started.unwrap();
        attachment.unwrap()
    }

    /// Runs it to its end: output and exit.
    pub async fn run(&mut self) -> Outcome {
        let attachment = self.start_attached().await;
        let outcome = collect(attachment).await;
        self.world.runtime.delete(&self.id).await.unwrap();
        outcome
    }

    pub fn log_to_file(&mut self) -> PathBuf {
        let path = self.state_dir.join("log");
        self.log = Some(LogSettings {
            path: path.clone(),
            max_size: None,
            max_file: 1,
            attrs: BTreeMap::new(),
        });
        path
    }

    pub async fn exec(
        &self,
        args: &[&str],
        stdio: Stdio,
    ) -> runtime::Result<(ExecId, Option<Attachment>)> {
        let exec = ExecId::random();
        let args: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
        let process = bundle::exec_process(&ExecInput {
            config: &self.config,
            host: &self.host,
            hostname: "box",
            args: &args,
            env: &["FROM=exec".into()],
            working_dir: "",
            user: &ResolvedUser::default(),
            tty: stdio.tty,
            privileged: false,
            console_size: stdio.console_size,
        })?;
        let launch = ExecLaunch {
            exec: exec.clone(),
            process,
            stdio,
            wait_attach: true,
        };
        let runtime = &self.world.runtime;
        let (started, attachment) = tokio::join!(runtime.exec(&self.id, launch), async {
            tokio::task::yield_now().await;
            runtime.exec_attach(&self.id, &exec, ALL).await
        });
        started?;
        Ok((exec, attachment.ok()))
    }
}

/// What came of a process.
#[derive(Debug, Default)]
pub struct Outcome {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Option<ExitInfo>,
}

impl Outcome {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
    pub fn code(&self) -> i32 {
        self.exit.expect("an exit was told").code
    }
}

pub async fn collect(mut attachment: Attachment) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(frame) = attachment.output.next().await {
        match frame {
            Frame::Stdout(bytes) => outcome.stdout.extend_from_slice(&bytes),
            Frame::Stderr(bytes) => outcome.stderr.extend_from_slice(&bytes),
            Frame::Exit(exit) => outcome.exit = Some(exit),
        }
    }
    outcome
}

/// Reads until the output contains `text`.
pub async fn read_until(attachment: &mut Attachment, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let frame = tokio::time::timeout(Duration::from_secs(10), attachment.output.next()).await;
        match frame.unwrap_or_else(|_| panic!("no {text:?} in {seen:?}")) {
            Some(Frame::Stdout(bytes) | Frame::Stderr(bytes)) => {
                seen.push_str(&String::from_utf8_lossy(&bytes))
            }
            other => panic!("no {text:?} in {seen:?}, but {other:?}"),
        }
    }
    seen
}
