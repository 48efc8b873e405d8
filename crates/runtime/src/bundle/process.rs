//! The process of a container, and those of exec sessions.

use std::path::Path;

use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder, Capabilities, LinuxCapabilities, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, User,
};
use types::{Config, HostConfig};

use super::{BundleInput, INIT_PATH, Security, capabilities};
use crate::{
    error::{Error, Result},
    user::ResolvedUser,
};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process for an exec session.
#[derive(Debug, Clone)]
pub struct ExecInput<'a> {
    /// Those of the container it runs in.
    pub config: &'a Config,
    pub host: &'a HostConfig,
    /// The container's own name.
    pub hostname: &'a str,
    pub args: &'a [String],
    /// `NAME=value`, over the container's own.
    pub env: &'a [String],
    /// Empty: the container's.
    pub working_dir: &'a str,
    pub user: &'a ResolvedUser,
    pub tty: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Width, height.
    pub console_size: Option<(u16, u16)>,
}

/// The process of an exec session.
pub fn exec_process(input: &ExecInput<'_>) -> Result<Process> {
    let security = Security::parse(input.host)?;
    let mut base = input.config.clone();
    base.tty = input.tty;
    let mut process = common(
        &base,
        input.host,
        input.hostname,
        &[],
        input.env,
        input.user,
        &security,
    )?;
    if input.privileged {
        let all = crate::caps::resolve(&[], &[], true)?;
        process.set_capabilities(Some(capability_sets(all, input.user.uid)));
    }
    let cwd = if input.working_dir.is_empty() {
        &input.config.working_dir
    } else {
        input.working_dir
    };
    process
        .set_args(Some(input.args.to_vec()))
        .set_cwd(absolute(cwd).into())
        .set_console_size(console(input.console_size));
    Ok(process)
}

/// The first process of a container.
pub(super) fn container(input: &BundleInput<'_>, security: &Security) -> Result<Process> {
    let (config, host) = (input.config, input.host);
    let mut process = common(
        config,
        host,
        input.hostname,
        input.extra_env,
        &[],
        input.user,
        security,
    )?;
    let [height, width] = host
        .console_size
        .map(|size| u16::try_from(size).unwrap_or(u16::MAX));
    process
        .set_args(Some(args(input)?))
        .set_cwd(absolute(&config.working_dir).into())
        .set_console_size(console(
            (config.tty && width > 0 && height > 0).then_some((width, height)),
        ));
    Ok(process)
}

/// What both kinds of processes have in common.
fn common(
    config: &Config,
    host: &HostConfig,
    hostname: &str,
    extra_env: &[String],
    more_env: &[String],
    user: &ResolvedUser,
    security: &Security,
) -> Result<Process> {
    let mut oci_user = User::default();
    oci_user
        .set_uid(user.uid)
        .set_gid(user.gid)
        .set_additional_gids(Some(user.additional_gids.clone()));
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_user(oci_user)
        .set_env(Some(env(config, hostname, extra_env, more_env, &user.home)))
        .set_capabilities(Some(capability_sets(capabilities(host)?, user.uid)))
        .set_rlimits(Some(rlimits(host)?))
        .set_no_new_privileges(Some(security.no_new_privileges))
        .set_oom_score_adj(Some(host.oom_score_adj));
    Ok(process)
}

/// The init for `--init`, when it is asked for.
pub(super) fn init<'a>(input: &BundleInput<'a>) -> Option<&'a Path> {
    input.init.filter(|_| input.host.init == Some(true))
}

fn args(input: &BundleInput<'_>) -> Result<Vec<String>> {
    let mut args = Vec::new();
    if init(input).is_some() {
        args.extend([INIT_PATH, "--"].map(str::to_owned));
    } else if input.host.init == Some(true) {
        return Err(Error::Invalid(
            "the init binary for --init is missing: install tini".into(),
        ));
    }
    let before = args.len();
    args.extend(input.config.entrypoint.iter().flatten().cloned());
    args.extend(input.config.cmd.iter().flatten().cloned());
    if args.len() == before {
        return Err(Error::Invalid("no command specified".into()));
    }
    Ok(args)
}

fn absolute(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

fn console(size: Option<(u16, u16)>) -> Option<ConsoleSize> {
    let (width, height) = size?;
    BoxBuilder::default()
        .width(width)
        .height(height)
        .build()
        .ok()
}

/// Defaults, then what kraud adds, then the configuration's own, then `more`; the last
/// value of a name counts, and a bare name removes it.
fn env(
    config: &Config,
    hostname: &str,
    extra: &[String],
    more: &[String],
    home: &str,
) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if config.tty {
        env.push("TERM=xterm".into());
    }
    let own = config.env.iter().flatten();
    for setting in extra.iter().chain(own).chain(more) {
        let name = setting.split('=').next().unwrap_or_default();
        let same = |other: &String| {
            other
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('='))
        };
        match (env.iter().position(same), setting.contains('=')) {
            (Some(place), true) => env[place] = setting.clone(),
            (None, true) => env.push(setting.clone()),
            (Some(place), false) => drop(env.remove(place)),
            (None, false) => {}
        }
    }
    if !env.iter().any(|setting| setting.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    env
}

/// A user other than root has them only to gain by executing a file that grants them, as
/// after any `execve`.
fn capability_sets(capabilities: Capabilities, uid: u32) -> LinuxCapabilities {
    let own = if uid == 0 {
        capabilities.clone()
    } else {
        Capabilities::new()
    };
    let mut sets = LinuxCapabilities::default();
    sets.set_effective(Some(own.clone()))
        .set_permitted(Some(own))
        .set_bounding(Some(capabilities))
        .set_inheritable(Some(Capabilities::new()))
        .set_ambient(Some(Capabilities::new()));
    sets
}

fn rlimits(host: &HostConfig) -> Result<Vec<PosixRlimit>> {
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    host.resources
        .ulimits
        .iter()
        .flatten()
        .map(|ulimit| {
            let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
            let kind: PosixRlimitType = name
                .parse()
                .map_err(|_| Error::Invalid(format!("invalid ulimit type: {}", ulimit.name)))?;
            Ok(PosixRlimitBuilder::default()
                .typ(kind)
                .soft(limit(ulimit.soft))
                .hard(limit(ulimit.hard))
                .build()?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment() {
        let list = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let config = Config {
            env: Some(list(&["A=1", "B=2", "HOSTNAME=mine"])),
            tty: true,
            ..Config::default()
        };
        let env = env(
            &config,
            "box",
            &list(&["A=0", "X=9"]),
            &list(&["B", "C=3"]),
            "/root",
        );
        assert_eq!(
            env,
            [
                DEFAULT_PATH,
                "HOSTNAME=mine",
                "TERM=xterm",
                "A=1",
                "X=9",
                "C=3",
                "HOME=/root"
            ]
        );
    }

    #[test]
    fn capabilities_of_other_users() {
        let sets = capability_sets(
            Capabilities::from([oci_spec::runtime::Capability::Kill]),
            1000,
        );
        assert!(sets.effective().as_ref().unwrap().is_empty());
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    }
}
