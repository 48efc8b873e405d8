//! `kraud pool`: the operator's way to storage pools. It asks the running daemon, by the same
//! API as kra.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::{Client, Host};
use term::Format;
use types::{
    PoolName,
    native::{Pool, PoolCreate, PoolEngine, PoolGrow, PoolSource},
    size,
};

use crate::{cli, config::Config};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a pool on a file, on devices, or in a directory
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// List the pools
    #[command(after_help = "Examples:\n  kraud pool ls\n  kraud pool ls -o json")]
    Ls(List),
    /// Show all about pools
    #[command(
        after_help = "Examples:\n  kraud pool inspect fast\n  kraud pool inspect fast -o json"
    )]
    Inspect(Inspect),
    /// Remove pools that hold no volumes; their devices are free again
    #[command(after_help = "Examples:\n  kraud pool rm fast")]
    Rm {
        /// The pools
        #[arg(required = true, value_name = "POOL")]
        names: Vec<String>,
    },
    /// Make a pool larger, while it is in use
    #[command(
        after_help = "Examples:\n  kraud pool grow default --size 200G\n  kraud pool grow fast --device /dev/sdd\n  kraud pool grow fast --fill"
    )]
    Grow(Grow),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  kraud pool create big --size 200G
  kraud pool create fast --engine zfs --device /dev/nvme1n1
  kraud pool create safe --engine btrfs --device /dev/sdb --device /dev/sdc --mirror
  kraud pool create here --directory /srv/btrfs/volumes

A device must be empty: what is on it is never overwritten.";

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(crate) struct Create {
    /// Its name
    name: PoolName,
    /// What keeps it
    #[arg(long, value_enum, default_value_t = Engine::Btrfs)]
    engine: Engine,
    /// A sparse file of this size, which takes room on the disk only as it is filled
    #[arg(long, value_name = "SIZE", group = "source")]
    size: Option<String>,
    /// Where that file is [default: in the data directory]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["devices", "directory"])]
    file: Option<PathBuf>,
    /// A whole device; several may be given
    #[arg(long = "device", value_name = "PATH", group = "source")]
    devices: Vec<PathBuf>,
    /// Keep every block on two devices
    #[arg(long, conflicts_with_all = ["size", "directory"])]
    mirror: bool,
    /// A directory on a mounted file system of the engine's kind
    #[arg(long, value_name = "PATH", group = "source")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    Btrfs,
    Zfs,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The pools
    #[arg(required = true, value_name = "POOL")]
    names: Vec<String>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("by").required(true))]
pub(crate) struct Grow {
    /// The pool
    name: String,
    /// Of a pool on a file: how large the file becomes
    #[arg(long, value_name = "SIZE", group = "by")]
    size: Option<String>,
    /// One more device; several may be given, a mirror of ZFS takes two at once
    #[arg(long = "device", value_name = "PATH", group = "by")]
    devices: Vec<PathBuf>,
    /// Its devices have grown already: use all of them
    #[arg(long, group = "by")]
    fill: bool,
}

/// Asks the daemon and prints what it says.
pub(crate) fn run(options: &cli::Pool) -> anyhow::Result<ExitCode> {
    let config = Config::load(&options.place)?;
    let client = Client::new(Host::Unix(config.socket));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(ask(&client, &options.command))?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(client: &Client, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => {
            let pool = client.pool_create(&wanted(options)?).await?;
            term::line(pool.name.as_str())?;
        }
        Command::Ls(options) => {
            let pools = client.pools().await?;
            match options.output {
                _ if options.quiet => {
                    let names: String = pools
                        .iter()
                        .map(|pool| format!("{}\n", pool.name))
                        .collect();
                    term::print(&names)?;
                }
                Format::Json => term::json(&pools)?,
                Format::Table => term::pools::table(&pools).print()?,
            }
        }
        Command::Inspect(options) => {
            let mut pools: Vec<Pool> = Vec::new();
            for name in &options.names {
                pools.push(client.pool(name).await?);
            }
            match options.output {
                Format::Json => term::json(&pools)?,
                Format::Table => {
                    let texts: Vec<String> = pools
                        .iter()
                        .map(|pool| term::pools::facts(pool).text())
                        .collect();
                    term::print(&texts.join("\n"))?;
                }
            }
        }
        Command::Rm { names } => {
            for name in names {
                client.pool_remove(name).await?;
                term::line(name)?;
            }
        }
        Command::Grow(options) => {
            let pool = client.pool_grow(&options.name, &growth(options)?).await?;
            term::line(&format!("{}: {}", pool.name, term::bytes(pool.total)))?;
        }
    }
    Ok(())
}

fn wanted(options: &Create) -> anyhow::Result<PoolCreate> {
    let source = match (&options.size, &options.directory) {
        (Some(size), _) => PoolSource::File {
            size: bytes(size)?,
            path: options.file.as_deref().map(absolute).transpose()?,
        },
        (None, Some(path)) => PoolSource::Directory {
            path: absolute(path)?,
        },
        (None, None) => PoolSource::Devices {
            paths: all_absolute(&options.devices)?,
            mirror: options.mirror,
        },
    };
    Ok(PoolCreate {
        name: options.name.clone(),
        engine: match options.engine {
            Engine::Btrfs => PoolEngine::Btrfs,
            Engine::Zfs => PoolEngine::Zfs,
        },
        source,
    })
}

fn growth(options: &Grow) -> anyhow::Result<PoolGrow> {
    Ok(match &options.size {
        Some(size) => PoolGrow::File { size: bytes(size)? },
        None if options.fill => PoolGrow::Fill,
        None => PoolGrow::Devices {
            paths: all_absolute(&options.devices)?,
        },
    })
}

fn bytes(text: &str) -> anyhow::Result<u64> {
    match size::parse(text) {
        Ok(0) => bail!("a pool of no size is of no use"),
        Ok(bytes) => Ok(bytes),
        Err(_) => bail!("{text:?} is not a size; want a number and a unit, such as 50G"),
    }
}

/// The daemon has another working directory.
fn absolute(path: &std::path::Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("making {} absolute", path.display()))
}

fn all_absolute(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    paths.iter().map(|path| absolute(path)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        match cli::Cli::try_parse_from(line.split_whitespace()) {
            Ok(cli::Cli {
                command: cli::Command::Pool(pool),
            }) => Ok(pool.command),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn examples_are_accepted() {
        for line in CREATE_EXAMPLES
            .lines()
            .filter(|line| line.contains("kraud pool"))
        {
            let Command::Create(options) = parse(line).unwrap() else {
                panic!("{line}");
            };
            wanted(&options).unwrap();
        }
        for line in [
            "ls -q",
            "inspect a b -o json",
            "rm a b",
            "grow a --fill",
            "grow a --size 1G",
        ] {
            parse(&format!("kraud pool {line}")).unwrap();
        }
    }

    #[test]
    fn one_source_and_no_more() {
        for line in [
            "create a",
            "create a --size 1G --device /dev/x",
            "create a --directory /x --device /dev/x",
            "create a --size 1G --mirror",
            "create a --file /x --device /dev/x",
            "create 1a --size 1G",
            "create a --engine ext4 --size 1G",
            "grow a",
            "grow a --fill --size 1G",
        ] {
            assert!(parse(&format!("kraud pool {line}")).is_err(), "{line}");
        }
        let Ok(Command::Create(options)) =
            parse("kraud pool create a --device x --device /dev/y --mirror")
        else {
            panic!("not parsed");
        };
        let PoolSource::Devices { paths, mirror } = wanted(&options).unwrap().source else {
            panic!("no devices");
        };
        assert!(mirror && paths.len() == 2 && paths[0].is_absolute());
        for bad in ["0", "x", "-1"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
