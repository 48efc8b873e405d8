//! The command line as a whole; each command's own options are in its file.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{exit::Outcome, login, pool, push, setup, token, up, version, volume};

/// kra: volumes with snapshots and instant rollback, on kraud.
///
/// Containers are docker's business: use docker and docker compose with kraud as you always
/// do. kra does what they have no words for.
#[derive(Debug, Parser)]
#[command(name = "kra", version, max_term_width = 100, arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The kraud to speak to: https://name:port, or with the fingerprint of its certificate
    /// https://name:port#FINGERPRINT, or a socket [default: where one has logged in, else unix:///run/kraud/kraud.sock]
    #[arg(short = 'H', long, global = true, value_name = "URL", env = "KR_HOST")]
    pub(crate) host: Option<String>,
    /// The login to use, as `kra context ls` names it
    #[arg(short = 'c', long, value_name = "NAME", env = "KR_CONTEXT")]
    pub(crate) context: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
EXAMPLES
  A volume, used by docker:
      kra volume create data --size 10G
      docker run -v data:/data ...
  A snapshot before something risky, and back to it:
      kra volume snapshot create data before-upgrade
      kra volume rollback data before-upgrade --restart
  One file as it was on Monday:
      kra volume cp data@monday:/etc/app.conf ./
  A copy to try things on, made in no time:
      kra volume clone data@monday try

  Docker on this machine, containers on that one:
      kra login https://kraud.example --fingerprint 3f5a...
      kra setup docker --use

ENVIRONMENT
  KR_HOST           the kraud to speak to, as --host
  KR_ACCESS_TOKEN   the token to show it, in place of a login
  KR_FINGERPRINT    what its certificate is known by, as --fingerprint of kra login; may stand in
                    KR_HOST, too: https://name:port#3f5a...
  KR_CONTEXT        the login to use, as --context
  KR_CONFIG         where logins are kept [default: ~/.config/kra]

EXIT CODES
  0 done, 1 failed, 2 wrong command line, 3 no such thing, 4 in the way of something else,
  5 not allowed, 6 kraud was not reached, 7 kraud cannot do this (now), 8 wrong request";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Volumes: make, look at, snapshot, roll back, clone, copy
    #[command(visible_alias = "vol", arg_required_else_help = true)]
    Volume {
        #[command(subcommand)]
        command: volume::Command,
    },
    /// Send images to kraud, and of them only what it lacks
    #[command(after_help = push::EXAMPLES)]
    Push(push::Options),
    /// Bring a compose project up on kraud, with its images and its files
    #[command(after_help = up::UP_EXAMPLES)]
    Up(up::Up),
    /// Stop a compose project and remove its containers and networks
    #[command(after_help = "Examples:\n  kra down\n  kra down --volumes")]
    Down(up::Pass),
    /// List the containers of a compose project
    #[command(after_help = "Examples:\n  kra ps\n  kra ps --all --format json")]
    Ps(up::Pass),
    /// Show the logs of a compose project
    #[command(after_help = "Examples:\n  kra logs -f\n  kra logs --tail 100 web")]
    Logs(up::Pass),
    /// Run a command in a container of a compose project
    #[command(
        after_help = "Examples:\n  kra exec web sh\n  kra exec -T db pg_dump shop > dump.sql"
    )]
    Exec(up::Pass),
    /// Show what happens to the containers of a compose project
    #[command(after_help = "Examples:\n  kra events\n  kra events --json")]
    Events(up::Pass),
    /// Keep the files that a compose project mounts on kraud as they are here
    #[command(after_help = "Examples:\n  kra sync\n  kra sync --once")]
    Sync(up::Sync),
    /// Storage pools that volumes are kept on
    #[command(arg_required_else_help = true)]
    Pool {
        #[command(subcommand)]
        command: pool::Command,
    },
    /// Log in to a kraud on the network with a token
    #[command(
        after_help = "Examples:\n  kra login https://kraud.example --fingerprint 3f5a...\n  kra login https://kraud.example:2376 --token-stdin < token"
    )]
    Login(login::Login),
    /// Forget a login; its token stays good
    #[command(after_help = "Examples:\n  kra logout\n  kra -c shop logout")]
    Logout,
    /// Logins: which there are, and which is used
    #[command(arg_required_else_help = true)]
    Context {
        #[command(subcommand)]
        command: login::ContextCommand,
    },
    /// Say who one is, to kraud
    #[command(after_help = "Examples:\n  kra whoami\n  kra whoami -o json")]
    Whoami(login::Show),
    /// Show what the namespace has, and what it may have
    #[command(after_help = "Examples:\n  kra usage\n  kra usage -o json")]
    Usage(login::Show),
    /// Tokens: who may work in the namespace
    #[command(arg_required_else_help = true)]
    Token {
        #[command(subcommand)]
        command: token::Command,
    },
    /// Make docker and other programs work with a kraud on the network
    #[command(arg_required_else_help = true)]
    Setup {
        #[command(subcommand)]
        command: setup::Command,
    },
    /// Print the versions of kra and of the kraud that it speaks to
    #[command(after_help = "Examples:\n  kra version\n  kra version -o json")]
    Version(version::Options),
    /// Print the completions of a shell
    #[command(after_help = "Examples:\n  kra completions bash > /etc/bash_completion.d/kra")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(
        after_help = "Examples:\n  kra man /usr/local/share/man/man1 && man kra-volume-rollback"
    )]
    Man {
        /// Where to; must exist
        dir: PathBuf,
    },
}

/// Prints the completions of `shell`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    // Generated as a whole first: the generator panics when a pipe closes under it.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kra", &mut text);
    term::print(&String::from_utf8_lossy(&text))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command shows how it is used.
    #[test]
    fn every_command_has_examples() {
        fn walk(path: &str, command: &clap::Command) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    walk(&path, sub);
                    continue;
                }
                let help = sub
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    help.contains(&format!("Examples:\n  {path}")),
                    "{path}: {help}"
                );
                assert!(sub.get_about().is_some(), "{path}");
                // The examples themselves must be accepted.
                for line in help.lines().filter(|line| line.starts_with("  kra ")) {
                    let words = line
                        .split(['|', '>', '<', '&', '#'])
                        .next()
                        .unwrap()
                        .split_whitespace();
                    if let Err(error) = Cli::try_parse_from(words) {
                        panic!("{line}: {error}");
                    }
                }
            }
        }
        walk("kra", &Cli::command());
    }
}
