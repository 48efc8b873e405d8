//! The command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// kraud: a storage-first container cloud on one machine or many.
///
/// It speaks the Docker Engine API, so that docker, docker compose and their SDKs are its
/// clients: point them at its socket and work as usual.
#[derive(Debug, Parser)]
#[command(name = "kraud", version, max_term_width = 100, arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
EXAMPLES
  Check that this machine has what it needs:
      kraud doctor
  Run in the foreground and use it:
      kraud serve &
      docker -H unix:///run/kraud/kraud.sock run --rm busybox echo hello
  Make it docker's default for this shell:
      export DOCKER_HOST=unix:///run/kraud/kraud.sock
  A second one beside the first, sharing nothing with it:
      kraud serve --data-dir /srv/two --socket /run/two.sock
  A storage pool on two disks, every block on both:
      kraud pool create safe --engine btrfs --device /dev/sdb --device /dev/sdc --mirror
  Let somebody in over the network (prints the token of its owner):
      kraud tenant create shop
      kraud fingerprint
  Stop the daemon and its containers:
      kraud stop --containers

FILES
  /var/lib/kraud          data: images, containers, volumes, records
  /run/kraud/kraud.sock   the API's socket, for root and the group kraud
  /etc/kraud/kraud.toml   configuration, read when it exists

SIGNALS
  SIGTERM, SIGINT   stop cleanly; containers keep running and are found again at the next start";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in the foreground
    #[command(
        after_help = "Examples:\n  kraud serve\n  kraud serve --data-dir /srv/kraud --socket /run/kraud2.sock --log debug"
    )]
    Serve(Serve),
    /// Stop a running daemon, and its containers if asked
    #[command(
        after_help = "Examples:\n  kraud stop\n  kraud stop --containers --data-dir /srv/kraud"
    )]
    Stop(Stop),
    /// Check the kernel, control groups, tools, disk and rights, and say what is missing
    #[command(after_help = "Examples:\n  kraud doctor\n  kraud doctor -o json")]
    Doctor(Doctor),
    /// Make, look at, grow and remove storage pools
    #[command(arg_required_else_help = true)]
    Pool(Pool),
    /// Make, list and remove tenants: namespaces of those who come over the network
    #[command(arg_required_else_help = true)]
    Tenant(Tenant),
    /// Show who did what, when, from where and with which token
    #[command(
        after_help = "Examples:\n  kraud audit\n  kraud audit --namespace shop --since 2030-01-31T12:00:00Z\n  kraud audit --failed --call DELETE -o json"
    )]
    Audit(Audit),
    /// Print what the server's certificate is known by, for `kra login --fingerprint`
    #[command(after_help = "Examples:\n  kraud fingerprint\n  kraud fingerprint -o json")]
    Fingerprint(Authority),
    /// Make another certificate authority; what the ones before have signed stays good
    #[command(after_help = "Examples:\n  kraud rotate-authority")]
    RotateAuthority(Authority),
    /// Print the completions of a shell
    #[command(after_help = "Examples:\n  kraud completions bash > /etc/bash_completion.d/kraud")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(after_help = "Examples:\n  kraud man /usr/local/share/man/man1 && man kraud")]
    Man {
        /// Where to; must exist
        dir: PathBuf,
    },
}

/// Prints the completions of `shell`.
pub(crate) fn completions(shell: clap_complete::Shell) {
    // Generated as a whole first: the generator panics when a pipe closes under it.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kraud", &mut text);
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &text);
}

/// Writes a page for the program and one for each subcommand.
pub(crate) fn man_pages(dir: &std::path::Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("writing manual pages to {}", dir.display()))
}

/// Where an instance is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Directory for all durable data [default: /var/lib/kraud]
    #[arg(long, global = true, value_name = "DIR", env = "KRAUD_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Socket of the API [default: /run/kraud/kraud.sock]
    #[arg(long, global = true, value_name = "PATH", env = "KRAUD_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Configuration file [default: /etc/kraud/kraud.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", env = "KRAUD_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Log level, or a filter such as `info,engine=debug`; RUST_LOG goes before it [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// Where to serve the API over the network, by TLS; `none` for nowhere [default: 0.0.0.0:2376]
    #[arg(long, value_name = "ADDRESS:PORT", env = "KRAUD_LISTEN")]
    pub(crate) listen: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Tenant {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: crate::tenant::Command,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Whose calls
    #[arg(long, value_name = "TENANT")]
    pub(crate) namespace: Option<String>,
    /// Those made with this token
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A part of method and path, such as `DELETE /containers`
    #[arg(long, value_name = "TEXT")]
    pub(crate) call: Option<String>,
    /// Not before this time (RFC 3339, or seconds since 1970)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Not after this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only what was refused or failed
    #[arg(long)]
    pub(crate) failed: bool,
    /// The last so many; 0 for all
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    pub(crate) last: usize,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = term::Format::Table)]
    pub(crate) output: term::Format,
}

#[derive(Debug, Args)]
pub(crate) struct Authority {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Stop the containers too, each with its own stop signal and time
    #[arg(long)]
    pub(crate) containers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Pool {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: crate::pool::Command,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How to print the findings
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}
