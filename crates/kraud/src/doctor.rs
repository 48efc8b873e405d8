//! `kraud doctor`: what this machine has and lacks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use crate::{
    cli::{self, Output},
    config::{Config, find_program},
};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// All is well.
    Ok,
    /// Something works less well, or not at all, but kraud runs.
    Warning,
    /// kraud does not run.
    Missing,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it; empty when all is well.
    remedy: String,
}

/// Prints all findings; fails when kraud could not run here.
pub(crate) fn run(options: &cli::Doctor) -> anyhow::Result<ExitCode> {
    let config = Config::load(&options.place)?;
    let findings = [
        vec![
            rights(),
            kernel(),
            overlay(),
            cgroups(),
            seccomp(),
            forwarding(),
            btrfs(),
            loop_devices(),
        ],
        tools(&config),
        vec![
            shim(),
            disk(&config.data_dir),
            tenants(&config.data_dir),
            group(&config.group),
        ],
    ]
    .concat_all();
    match options.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Table => print_table(&findings),
    }
    let missing = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Missing);
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Finding>;
}
impl<const N: usize> ConcatAll for [Vec<Finding>; N] {
    fn concat_all(self) -> Vec<Finding> {
        self.into_iter().flatten().collect()
    }
}

fn print_table(findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Missing => "MISSING",
        };
        println!("{mark}  {:<16} {}", finding.check, finding.found);
        if !finding.remedy.is_empty() {
            println!("         {:<16} -> {}", "", finding.remedy);
        }
    }
    let count = |verdict| {
        findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    println!(
        "\n{} checks: {} missing, {} warnings",
        findings.len(),
        count(Verdict::Missing),
        count(Verdict::Warning)
    );
}

fn finding(
    check: &'static str,
    good: bool,
    otherwise: Verdict,
    found: impl Into<String>,
    remedy: &str,
) -> Finding {
    Finding {
        check,
        verdict: if good { Verdict::Ok } else { otherwise },
        found: found.into(),
        remedy: if good {
            String::new()
        } else {
            remedy.to_owned()
        },
    }
}

fn rights() -> Finding {
    let root = nix::unistd::geteuid().is_root();
    finding(
        "rights",
        root,
        Verdict::Missing,
        if root { "root" } else { "not root" },
        "run kraud as root: sudo kraud serve",
    )
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    finding(
        "kernel",
        version >= (5, 11),
        Verdict::Missing,
        release,
        "kraud needs Linux 5.11 or newer",
    )
}

/// The kernel loads a file system's module when it is mounted first: nothing has to be loaded yet.
fn overlay() -> Finding {
    let loaded = fs::read_to_string("/proc/filesystems")
        .unwrap_or_default()
        .contains("\toverlay");
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let module = || {
        fs::read_to_string(format!("/lib/modules/{release}/modules.dep"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(path, _)| path.contains("/overlay.ko"))
    };
    let has = loaded || module();
    finding(
        "overlayfs",
        has,
        Verdict::Missing,
        match (loaded, has) {
            (true, _) => "available",
            (false, true) => "available as a module",
            (false, false) => "not available",
        },
        "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS",
    )
}

fn cgroups() -> Finding {
    match runtime::cgroup::Cgroups::detect() {
        Err(error) => finding(
            "control groups",
            false,
            Verdict::Missing,
            error.to_string(),
            "mount cgroup2 at /sys/fs/cgroup",
        ),
        Ok(groups) => {
            let lacking: Vec<&str> = ["memory", "cpu", "pids"]
                .into_iter()
                .filter(|name| !groups.has(name))
                .collect();
            let found = format!(
                "version {}{}",
                groups.version(),
                if groups.has_swap_limit() {
                    ""
                } else {
                    ", swap is not counted"
                }
            );
            let remedy = format!(
                "limits of {} will fail: switch the controllers on (cgroup.subtree_control, or the kernel's command line)",
                lacking.join(", ")
            );
            finding(
                "control groups",
                lacking.is_empty(),
                Verdict::Warning,
                found,
                &remedy,
            )
        }
    }
}

fn seccomp() -> Finding {
    let has = fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .contains("Seccomp_filters");
    finding(
        "seccomp",
        has,
        Verdict::Warning,
        if has { "available" } else { "not available" },
        "containers run without a system call filter: a kernel with CONFIG_SECCOMP_FILTER has one",
    )
}

fn forwarding() -> Finding {
    let on = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .unwrap_or_default()
        .trim()
        == "1";
    finding(
        "ip forwarding",
        true,
        Verdict::Ok,
        if on {
            "on"
        } else {
            "off; kraud serve turns it on"
        },
        "",
    )
}

fn tools(config: &Config) -> Vec<Finding> {
    let show = |path: Option<PathBuf>| {
        path.map_or_else(|| "not found".to_owned(), |path| path.display().to_string())
    };
    let runtime = config.runtimes.get(&config.default_runtime).cloned();
    let has_runtime = runtime.is_some();
    let (nft, ps, docker) = (
        find_program(&["nft"]),
        find_program(&["ps"]),
        find_program(&["docker"]),
    );
    vec![
        finding(
            "OCI runtime",
            has_runtime,
            Verdict::Missing,
            show(runtime),
            &format!("apt-get install {}", config.default_runtime),
        ),
        finding(
            "nftables",
            nft.is_some(),
            Verdict::Missing,
            show(nft),
            "apt-get install nftables",
        ),
        volume_tools(),
        finding(
            "init",
            config.init.is_some(),
            Verdict::Warning,
            show(config.init.clone()),
            "docker run --init will fail: apt-get install tini",
        ),
        finding(
            "ps",
            ps.is_some(),
            Verdict::Warning,
            show(ps),
            "docker top will fail: apt-get install procps",
        ),
        finding(
            "docker client",
            docker.is_some(),
            Verdict::Warning,
            show(docker),
            "nothing to talk to kraud with on this machine: install the docker CLI",
        ),
    ]
}

/// The file systems' own programs, which make pools and block volumes.
fn volume_tools() -> Finding {
    const TOOLS: [(&str, &str); 6] = [
        ("mkfs.btrfs", "btrfs-progs"),
        ("mkfs.ext4", "e2fsprogs"),
        ("e2fsck", "e2fsprogs"),
        ("resize2fs", "e2fsprogs"),
        ("mkfs.xfs", "xfsprogs"),
        ("xfs_growfs", "xfsprogs"),
    ];
    let lacking: Vec<(&str, &str)> = TOOLS
        .into_iter()
        .filter(|(tool, _)| find_program(&[tool]).is_none())
        .collect();
    let names: Vec<&str> = lacking.iter().map(|(tool, _)| *tool).collect();
    let packages: std::collections::BTreeSet<&str> =
        lacking.iter().map(|(_, package)| *package).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    finding(
        "volume tools",
        lacking.is_empty(),
        Verdict::Warning,
        if lacking.is_empty() {
            "btrfs, ext4, xfs".to_owned()
        } else {
            format!("not found: {}", names.join(", "))
        },
        &format!(
            "pools and block volumes that need them cannot be made: apt-get install {}",
            packages.join(" ")
        ),
    )
}

/// Pools in files and block volumes lie on loop devices.
fn loop_devices() -> Finding {
    let has = Path::new("/dev/loop-control").exists();
    finding(
        "loop devices",
        has,
        Verdict::Warning,
        if has {
            "available"
        } else {
            "/dev/loop-control is missing"
        },
        "pools in files and block volumes cannot be had: modprobe loop, or a kernel with CONFIG_BLK_DEV_LOOP",
    )
}

fn btrfs() -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = known.lines().any(|line| line.trim() == "btrfs")
        // A module is loaded at the first mount.
        || fs::read_dir("/lib/modules").is_ok_and(|mut dirs| dirs.next().is_some());
    finding(
        "btrfs",
        has,
        Verdict::Warning,
        if has {
            "available"
        } else {
            "not in this kernel"
        },
        "the default pool cannot be made: use a kernel with btrfs, or kraud pool create with --engine zfs",
    )
}

/// Containers of tenants have users of their own, and their files reach them by mapped mounts.
fn tenants(data_dir: &Path) -> Finding {
    let there = data_dir.ancestors().find(|dir| dir.is_dir());
    let probed = userns::probe(there.unwrap_or(Path::new("/")));
    finding(
        "tenants",
        probed.is_ok(),
        Verdict::Warning,
        match &probed {
            Ok(()) => "user namespaces and mapped mounts".to_owned(),
            Err(error) => error.to_string(),
        },
        "containers of tenants cannot run; the operator's can",
    )
}

fn shim() -> Finding {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("kraud-shim"))
        .filter(|path| path.is_file());
    let found = beside.or_else(|| find_program(&["kraud-shim"]));
    let text = found
        .as_ref()
        .map_or_else(|| "not found".to_owned(), |path| path.display().to_string());
    finding(
        "kraud-shim",
        found.is_some(),
        Verdict::Missing,
        text,
        "install kraud-shim beside kraud",
    )
}

fn disk(data_dir: &Path) -> Finding {
    let existing = data_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Err(error) => finding(
            "disk",
            false,
            Verdict::Missing,
            format!("{}: {error}", existing.display()),
            "check the disk of the data directory",
        ),
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let text = format!(
                "{}: {:.1} GiB free, {} inodes free",
                data_dir.display(),
                free as f64 / f64::from(1 << 30),
                stat.f_favail
            );
            finding(
                "disk",
                free > 1 << 30,
                Verdict::Warning,
                text,
                "less than 1 GiB is free: images and containers need room",
            )
        }
    }
}

fn group(name: &str) -> Finding {
    let exists = nix::unistd::Group::from_name(name).ok().flatten().is_some();
    let text = if exists {
        format!("{name} exists")
    } else {
        format!("{name} does not exist")
    };
    finding(
        "group",
        exists,
        Verdict::Warning,
        text,
        &format!("only root can use the socket: groupadd --system {name}"),
    )
}
