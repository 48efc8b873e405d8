//! zfs-fuse for one test: in a mount namespace of the test's thread, where its fixed socket and
//! lock are its own, and from which nothing leaks.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use pool::{Engine, Growth, Pool, PoolSpec, Source, conformance::Bench};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{Pid, Signal, kill_process, set_parent_process_death_signal},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::common::{G, M, Place};

/// Where `scripts/test.sh` unpacks it, else where it is installed.
fn programs() -> PathBuf {
    let tools = std::env::var_os("KRAUD_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools"),
        PathBuf::from,
    );
    [
        tools.join("zfs-fuse/sbin"),
        "/sbin".into(),
        "/usr/sbin".into(),
    ]
    .into_iter()
    .find(|directory| directory.join("zfs-fuse").exists())
    .unwrap_or_else(|| {
        panic!(
            "these tests need zfs-fuse. `scripts/test.sh unit` fetches it; by hand: \
                 apt-get download zfs-fuse && dpkg-deb -x zfs-fuse_*.deb {}",
            tools.join("zfs-fuse").display()
        )
    })
}

pub struct Daemon {
    child: Option<Child>,
}

impl Daemon {
    /// The thread is in a namespace of its own afterwards.
    pub fn start() -> Self {
        let programs = programs();
        // SAFETY: only this thread's mounts change; it has no other thread's file descriptors
        // or working directory to lose.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        for directory in ["/run", "/var/lib", "/usr/local/sbin"] {
            mount("tmpfs", directory, "tmpfs", MountFlags::empty(), None).unwrap();
        }
        for directory in ["/run/zfs", "/var/lib/zfs", "/run/lock/zfs"] {
            fs::create_dir_all(directory).unwrap();
        }
        for program in ["zfs", "zpool", "zfs-fuse"] {
            let file = programs.join(program).canonicalize().unwrap();
            symlink(file, Path::new("/usr/local/sbin").join(program)).unwrap();
        }
        let mut daemon = Self { child: None };
        daemon.run();
        daemon
    }

    pub fn run(&mut self) {
        let mut command = Command::new("/usr/local/sbin/zfs-fuse");
        command
            .args(["--no-daemon", "--no-kstat-mount", "--enable-xattr"])
            // The kernel may not remember what changed below it.
            .args(["-a", "0", "-e", "0", "-o", "default_permissions"])
            .args(["-m", "64", "--stack-size=256"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create("/run/zfs-fuse.log").unwrap());
        // SAFETY: one system call that is safe between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        self.child = Some(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while !quiet("zpool", &["list"]) {
            assert!(
                Instant::now() < until,
                "zfs-fuse does not start: {}",
                fs::read_to_string("/run/zfs-fuse.log").unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As if the machine had lost its power, but for what the disk acknowledged.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            let _ = fs::remove_file("/run/zfs/zfs_socket");
        }
    }

    /// Stops and continues it: while it is stopped it answers nobody.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a program succeeds, without its words.
pub fn quiet(program: &str, arguments: &[&str]) -> bool {
    Command::new(Path::new("/usr/local/sbin").join(program))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

/// A ZFS pool of about a gigabyte.
pub struct ZfsBench {
    pub spec: PoolSpec,
    pub pool: Option<Arc<dyn Pool>>,
    pub daemon: Daemon,
    pub place: Place,
}

impl ZfsBench {
    pub fn in_a_file(name: &str) -> Self {
        Self::new(name, |place| Source::File {
            path: place.file(),
            bytes: G,
        })
    }

    pub fn mirror(name: &str) -> Self {
        Self::new(name, |place| Source::Devices {
            paths: vec![
                sparse(place.path(), "one", G),
                sparse(place.path(), "two", G),
            ],
            mirror: true,
        })
    }

    fn new(name: &str, source: impl Fn(&Place) -> Source) -> Self {
        let place = Place::new(&format!("zfs-{name}"));
        let daemon = Daemon::start();
        let spec = PoolSpec {
            name: "test".parse().unwrap(),
            engine: Engine::Zfs,
            source: source(&place),
        };
        let pool = pool::create(&spec, &place.mount()).unwrap();
        Self {
            spec,
            pool: Some(pool),
            daemon,
            place,
        }
    }
}

/// A file that serves as a device.
pub fn sparse(place: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = place.join(name);
    if !path.exists() {
        File::create(&path).unwrap().set_len(bytes).unwrap();
    }
    path
}

/// Lets go of all mounts in a directory, dead ones too.
pub fn detach_all(directory: &Path) {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let point = line.split(' ').nth(1).unwrap_or_default();
        if Path::new(point).starts_with(directory) {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

impl Drop for ZfsBench {
    fn drop(&mut self) {
        self.daemon.kill();
        // The directory can go only when nothing is mounted in it.
        detach_all(self.place.path());
    }
}

impl Bench for ZfsBench {
    fn pool(&self) -> Arc<dyn Pool> {
        self.pool.clone().unwrap()
    }
    fn reopen(&mut self) {
        self.pool = None;
        self.pool = Some(pool::open(&self.spec, &self.place.mount()).unwrap());
    }
    fn open_closed(&mut self) {
        self.reopen();
    }
    fn limit_covers_snapshots(&self) -> bool {
        false
    }
    fn growth(&self) -> Option<Growth> {
        match &self.spec.source {
            Source::File { bytes, .. } => Some(Growth::Bytes(bytes + 512 * M)),
            Source::Devices { .. } => Some(Growth::Devices(vec![
                sparse(self.place.path(), "three", 512 * M),
                sparse(self.place.path(), "four", 512 * M),
            ])),
            Source::Directory { .. } => None,
        }
    }
}
