//! Facts of the machine. What cannot change while the daemon runs is gathered once.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use runtime::Runtime;

use crate::NodeInfo;

/// Facts, most of them gathered at the start.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    fixed: NodeInfo,
    /// Asked of the OCI runtime behind the start's back: it takes a process.
    runtime_version: Arc<OnceLock<String>>,
}

fn line(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn os_release(field: &str) -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// The version in the first line of `RUNTIME --version`: `crun version 1.8.1`.
fn version_of(runtime: &Path) -> String {
    let output = std::process::Command::new(runtime)
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines()
        .next()
        .and_then(|line| line.split_whitespace().last())
        .unwrap_or_default()
        .to_owned()
}

/// Bytes of a line of /proc/meminfo.
fn memory(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// The file system under `path`, by the longest mount point above it.
fn filesystem(path: &Path) -> String {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut best = (0, String::new());
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let target = left.split(' ').nth(4).unwrap_or_default();
        let kind = right.split(' ').next().unwrap_or_default();
        if path.starts_with(target) && target.len() >= best.0 {
            best = (target.len(), kind.to_owned());
        }
    }
    best.1
}

impl Facts {
    pub(super) fn gather(data_dir: &Path, runtime: &Runtime) -> Self {
        let settings = runtime.settings();
        let name = rustix::system::uname();
        let text = |bytes: &std::ffi::CStr| bytes.to_string_lossy().into_owned();
        let seccomp =
            fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("Seccomp:"));
        let runtime_version = Arc::new(OnceLock::new());
        if let Ok(path) = runtime.runtime_path("") {
            let (path, answer) = (path.to_owned(), runtime_version.clone());
            std::thread::spawn(move || answer.set(version_of(&path)));
        }
        let fixed = NodeInfo {
            hostname: text(name.nodename()),
            kernel_version: text(name.release()),
            operating_system: os_release("PRETTY_NAME"),
            os_version: os_release("VERSION_ID"),
            architecture: text(name.machine()),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: memory("MemTotal"),
            cgroup_version: if runtime.cgroups().version() == 2 {
                2
            } else {
                1
            },
            cgroup_driver: "cgroupfs".into(),
            runtimes: settings
                .runtimes
                .iter()
                .map(|(name, path)| (name.clone(), path.display().to_string()))
                .collect(),
            default_runtime: settings.default_runtime.clone(),
            runtime_version: String::new(),
            backing_filesystem: filesystem(data_dir),
            supports_d_type: true,
            swap_limit: runtime.cgroups().has_swap_limit(),
            blkio_weight: runtime.cgroups().has_blkio_weight(),
            memory_nodes: line("/sys/devices/system/node/has_memory"),
            ipv4_forwarding: false,
            seccomp,
            cgroupns: Path::new("/proc/self/ns/cgroup").exists(),
            init_binary: settings
                .init
                .as_deref()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            warnings: Vec::new(),
            open_files: 0,
        };
        Self {
            fixed,
            runtime_version,
        }
    }

    /// With what may have changed.
    pub(super) fn now(&self) -> NodeInfo {
        let mut info = self.fixed.clone();
        info.runtime_version = self.runtime_version.get().cloned().unwrap_or_default();
        info.ipv4_forwarding = line("/proc/sys/net/ipv4/ip_forward") == "1";
        info.open_files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        if !info.swap_limit {
            info.warnings.push("WARNING: No swap limit support".into());
        }
        if !info.ipv4_forwarding {
            info.warnings
                .push("WARNING: IPv4 forwarding is disabled".into());
        }
        info
    }
}
