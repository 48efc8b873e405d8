//! Starting processes: writes what the OCI runtime and the shim read, spawns the shim, and
//! waits for its report.

use std::{
    fs,
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Stdio as ProcessStdio,
};

use oci_spec::runtime::{PosixRlimit, Process, Spec};
use shim::proto::{self, files};
use types::ContainerId;
use types::ExecId;

use crate::{
    Runtime,
    error::{Error, Result, StartError, blocking},
    failure,
    meta::Meta,
    paths::{self, in_directory},
    seccomp,
};

/// Standard input, output and error of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stdio {
    /// One terminal instead of three pipes.
    pub tty: bool,
    /// Standard input is open (else /dev/null).
    pub open_stdin: bool,
    /// It is closed for good when the first attached client closes it.
    pub stdin_once: bool,
    /// First size of the terminal: width and height in characters.
    pub console_size: Option<(u16, u16)>,
    /// User and group of the host that own the pipes, so that the process can open them again
    /// (/dev/stdout); `None` for root.
    pub owner: Option<(u32, u32)>,
}

/// Where output is logged, in docker's json-file format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The newest file; older ones are beside it with `.1`, `.2`, …
    pub path: PathBuf,
    /// Bytes at which a new file is begun; `None` never.
    pub max_size: Option<u64>,
    /// Files kept, the newest included.
    pub max_file: u32,
    /// `labels`, `env`, `tag`, … of the log options: written with each line.
    pub attrs: std::collections::BTreeMap<String, String>,
}

/// A container to start.
#[derive(Debug, Clone)]
pub struct Launch {
    pub id: ContainerId,
    /// From [`crate::bundle::build`].
    pub spec: Spec,
    /// Name of the OCI runtime, empty for the default one.
    pub runtime: String,
    pub stdio: Stdio,
    /// `None` logs nothing.
    pub log: Option<LogSettings>,
    /// The container's durable directory: `exit.json` is written there.
    pub state_dir: PathBuf,
    /// Hold the output until the first client is attached (at most 10 s).
    pub wait_attach: bool,
}

/// A process to start in a running container.
#[derive(Debug, Clone)]
pub struct ExecLaunch {
    pub exec: ExecId,
    /// From [`crate::bundle::exec_process`].
    pub process: Process,
    pub stdio: Stdio,
    /// Hold the output until the first client is attached (at most 10 s).
    pub wait_attach: bool,
}

/// A started process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its id in the host's namespace.
    pub pid: i32,
}

/// A bundle on disk.
struct Prepared {
    listener: UnixListener,
    /// Under this key the compiled seccomp filter is still to be learnt.
    filter: Option<seccomp::Key>,
}

impl Runtime {
    /// Starts a container whose root file system, network namespace and generated files are
    /// ready. On failure nothing of it is left but the bundle's own mounts.
    pub async fn start(&self, launch: Launch) -> Result<Started> {
        let id = launch.id.clone();
        let command = first_argument(launch.spec.process().as_ref());
        let runtime = self.clone();
        let name = self.runtime_name(&launch.runtime);
        let directory = self.paths().container(&id);
        let starting = self.starting().begin(&directory);
        let prepared = blocking(move || runtime.prepare(launch)).await;
        let mut unlearnt = None;
        let outcome = match prepared {
            Ok(prepared) => {
                unlearnt = prepared.filter;
                self.supervise(directory, prepared.listener).await
            }
            Err(error) => Err(error),
        };
        // From here on nobody waits for the socket any more, the clean-up least of all.
        drop(starting);
        match outcome {
            Ok(report) => match report {
                proto::Report::Started(started) => {
                    self.learn_filter(&id, unlearnt);
                    Ok(Started { pid: started.pid })
                }
                proto::Report::Failed(words) => {
                    self.delete(&id).await?;
                    Err(failure::create_failed(&name, &command, &words).into())
                }
            },
            Err(error) => {
                self.delete(&id).await?;
                Err(error)
            }
        }
    }

    /// Starts a process in a running container.
    pub async fn exec(&self, id: &ContainerId, launch: ExecLaunch) -> Result<Started> {
        let command = first_argument(Some(&launch.process));
        let cwd = launch.process.cwd().clone();
        let directory = self.paths().exec(id, &launch.exec);
        let starting = self.starting().begin(&directory);
        let (runtime, container, dir) = (self.clone(), id.clone(), directory.clone());
        let listener = blocking(move || runtime.prepare_exec(&container, &dir, launch)).await?;
        let outcome = self.supervise(directory.clone(), listener).await;
        drop(starting);
        let failed = match outcome {
            Ok(proto::Report::Started(started)) => return Ok(Started { pid: started.pid }),
            Ok(proto::Report::Failed(words)) => failure::exec_failed(&command, &cwd, &words).into(),
            Err(error) => error,
        };
        blocking(move || paths::remove_tree(&directory)).await?;
        Err(failed)
    }

    /// How an OCI runtime is called in messages.
    fn runtime_name(&self, name: &str) -> String {
        let file = self.runtime_path(name).ok().and_then(Path::file_name);
        file.map_or_else(
            || name.to_owned(),
            |file| file.to_string_lossy().into_owned(),
        )
    }

    /// Keeps the compiled seccomp filter of a first start for the next ones, in the background.
    fn learn_filter(&self, id: &ContainerId, key: Option<seccomp::Key>) {
        let Some(key) = key else { return };
        let state = self.paths().runtime_root().join(id.as_str());
        let runtime = self.clone();
        tokio::task::spawn_blocking(move || runtime.filters().learn(key, &state));
    }

    /// Writes bundle and configurations, binds the attach socket.
    fn prepare(&self, mut launch: Launch) -> Result<Prepared> {
        let binary = self.runtime_path(&launch.runtime)?.to_owned();
        let filter = self.filters().apply(&binary, &mut launch.spec);
        let directory = self.paths().container(&launch.id);
        paths::remove_tree(&directory)?;
        fs::create_dir_all(&directory)
            .map_err(Error::io(format!("create {}", directory.display())))?;
        let exit_file = launch.state_dir.join(paths::EXIT_FILE);
        remove_if_there(&exit_file)?;

        let linux = launch.spec.linux().as_ref();
        let cgroup = linux
            .and_then(|linux| linux.cgroups_path().clone())
            .unwrap_or_default();
        let meta = Meta {
            cgroup: cgroup.to_string_lossy().into_owned(),
            state_dir: launch.state_dir.clone(),
            runtime: binary.clone(),
        };
        write_json(&directory.join(paths::META), &meta)?;
        write_json(&directory.join("config.json"), &launch.spec)?;

        let mut argv = self.runtime_argv(&binary, "run", launch.stdio.tty);
        argv.extend(["--bundle", ".", launch.id.as_str()].map(str::to_owned));
        let group = self.cgroups().group(&meta.cgroup);
        let config = proto::Config {
            argv,
            log: launch.log.map(log_config),
            exit_file,
            exit_sync: true,
            oom_file: group.oom_file(),
            limits: limits_of(launch.spec.process().as_ref()),
            ..self.shim_config(launch.stdio, launch.wait_attach)
        };
        write_json(&directory.join(files::CONFIG), &config)?;
        let listener = in_directory(&directory, files::SOCKET, |path| UnixListener::bind(path))?;
        Ok(Prepared { listener, filter })
    }

    /// The same for an exec session.
    fn prepare_exec(
        &self,
        id: &ContainerId,
        directory: &Path,
        launch: ExecLaunch,
    ) -> Result<UnixListener> {
        let meta = Meta::read(&self.paths().container(id))?
            .ok_or_else(|| Error::NotRunning(id.to_string()))?;
        paths::remove_tree(directory)?;
        fs::create_dir_all(directory)
            .map_err(Error::io(format!("create {}", directory.display())))?;
        write_json(&directory.join("process.json"), &launch.process)?;
        let mut argv = self.runtime_argv(&meta.runtime, "exec", launch.stdio.tty);
        argv.extend(["--process", "process.json", id.as_str()].map(str::to_owned));
        let config = proto::Config {
            argv,
            exit_file: directory.join(paths::EXIT_FILE),
            limits: limits_of(Some(&launch.process)),
            ..self.shim_config(launch.stdio, launch.wait_attach)
        };
        write_json(&directory.join(files::CONFIG), &config)?;
        in_directory(directory, files::SOCKET, |path| UnixListener::bind(path))
    }

    /// `crun --root … run --detach …` up to the sub-command's own arguments.
    fn runtime_argv(&self, binary: &Path, command: &str, tty: bool) -> Vec<String> {
        let mut argv = vec![binary.to_string_lossy().into_owned(), "--root".into()];
        argv.push(self.paths().runtime_root().to_string_lossy().into_owned());
        argv.extend(["--log", files::RUNTIME_LOG, "--log-format", "json"].map(str::to_owned));
        argv.extend([command, "--detach", "--pid-file", files::PID].map(str::to_owned));
        if tty {
            argv.extend(["--console-socket", files::CONSOLE].map(str::to_owned));
        }
        argv
    }

    fn shim_config(&self, stdio: Stdio, wait_attach: bool) -> proto::Config {
        let (width, height) = stdio.console_size.unwrap_or((0, 0));
        proto::Config {
            argv: Vec::new(),
            tty: stdio.tty,
            width,
            height,
            owner: stdio.owner,
            stdin: match (stdio.open_stdin, stdio.stdin_once) {
                (false, _) => proto::Stdin::None,
                (true, true) => proto::Stdin::Once,
                (true, false) => proto::Stdin::Keep,
            },
            log: None,
            exit_file: PathBuf::new(),
            exit_sync: false,
            oom_file: None,
            limits: Vec::new(),
            hide_mount: self.cgroups().mount_to_hide().map(Path::to_owned),
            wait_attach,
        }
    }

    /// Spawns the shim on a prepared directory and waits for its report.
    async fn supervise(&self, directory: PathBuf, listener: UnixListener) -> Result<proto::Report> {
        let shim = &self.settings().shim;
        let (read, write) = io::pipe().map_err(Error::io("create the shim's report pipe"))?;
        // The shim leaves the daemon's session by itself: without a hook between fork and
        // exec the daemon's page tables need not be copied.
        let mut child = tokio::process::Command::new(shim)
            .arg(&directory)
            .current_dir("/")
            .stdin(OwnedFd::from(listener))
            .stdout(write)
            .stderr(ProcessStdio::null())
            .spawn()
            .map_err(Error::io(format!("start the shim {}", shim.display())))?;
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        blocking(move || read_report(read)).await
    }
}

fn read_report(mut pipe: io::PipeReader) -> Result<proto::Report> {
    let mut text = String::new();
    pipe.read_to_string(&mut text)
        .map_err(Error::io("read the shim's report"))?;
    serde_json::from_str(&text).map_err(|_| {
        let message = format!("the shim ended without a report: {text:?}");
        StartError {
            kind: crate::error::StartErrorKind::Other,
            message,
        }
        .into()
    })
}

fn log_config(log: LogSettings) -> proto::Log {
    let attrs = if log.attrs.is_empty() {
        None
    } else {
        serde_json::to_string(&log.attrs).ok()
    };
    proto::Log {
        path: log.path,
        max_size: log.max_size,
        max_file: log.max_file.max(1),
        attrs,
    }
}

/// The hard limits of a process.
fn limits_of(process: Option<&Process>) -> Vec<(String, u64)> {
    let limits = process.and_then(|process| process.rlimits().as_deref());
    let named = |limit: &PosixRlimit| (limit.typ().to_string(), limit.hard());
    limits.unwrap_or_default().iter().map(named).collect()
}

fn first_argument(process: Option<&Process>) -> String {
    process
        .and_then(|process| process.args().as_ref()?.first().cloned())
        .unwrap_or_default()
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
    fs::write(path, bytes).map_err(Error::io(format!("write {}", path.display())))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
