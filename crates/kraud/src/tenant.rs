//! `kraud tenant`, `kraud fingerprint`, `kraud rotate-authority`: whom the operator lets in. They
//! ask the running daemon, by the same API as kra.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use client::{Client, Host};
use term::{Format, Table};
use types::{
    Namespace, Time,
    native::{self, TenantCreate},
    size,
    volume::Class,
};

use crate::{cli, config::Config};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a tenant, and print the token of its owner: it is shown this once
    #[command(
        after_help = "Examples:\n  kraud tenant create shop\n  KR_ACCESS_TOKEN=$(kraud tenant create shop -q)"
    )]
    Create(Create),
    /// List the tenants
    #[command(after_help = "Examples:\n  kraud tenant ls\n  kraud tenant ls -o json")]
    Ls(List),
    /// Show or say what a tenant may have
    #[command(after_help = QUOTA_EXAMPLES)]
    Quota(Quota),
    /// Remove tenants; their tokens end at once
    #[command(after_help = "Examples:\n  kraud tenant rm shop\n  kraud tenant rm --force shop")]
    Rm(Rm),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name: a-z, 0-9 and '-'
    name: Namespace,
    /// Print nothing but the token
    #[arg(short, long)]
    quiet: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

const QUOTA_EXAMPLES: &str = "\
Examples:
  kraud tenant quota shop
  kraud tenant quota shop containers=20 memory=4G cpus=2 ports=10
  kraud tenant quota shop nfs=100G lv2=50G snapshots=200
  kraud tenant quota shop disk=20G images=50G
  kraud tenant quota shop io=100M iops=2000
  kraud tenant quota shop memory=none

containers, ports and snapshots are counted; memory, cpus and pids are what all containers of the
tenant have together; nfs, lv2, lv1 and gfs are bytes of the sizes of volumes, which need one
then. disk is what containers write outside of volumes, and their logs: 10 GiB unless it is set.
io and iops are bytes and operations per second that all containers together read from disks, and
as many that they write. Where control groups are version 1 each container has them for itself, and
what is written through the page cache is not counted.
images are the bytes of the layers of images, each file in whole blocks of 4096 bytes.";

#[derive(Debug, Args)]
pub(crate) struct Quota {
    /// The tenant
    name: Namespace,
    /// What to change: containers, memory, cpus, pids, io, iops, disk, images, ports, snapshots, nfs, lv2, lv1, gfs; `none` for no limit of one's own
    #[arg(value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Makes a change such as `memory=4G`.
fn change(quota: &mut native::Quota, text: &str) -> anyhow::Result<()> {
    let (key, value) = text
        .split_once('=')
        .with_context(|| format!("{text:?}: want KEY=VALUE, such as memory=4G"))?;
    let wrong = || format!("{text:?}: {value:?} is no value for {key}");
    let count = || -> anyhow::Result<Option<u64>> {
        match value {
            "none" => Ok(None),
            _ => value.parse().map(Some).with_context(wrong),
        }
    };
    let bytes = || -> anyhow::Result<Option<u64>> {
        match value {
            "none" => Ok(None),
            _ => size::parse(value).map(Some).with_context(wrong),
        }
    };
    match key {
        "containers" => quota.containers = count()?,
        "ports" => quota.ports = count()?,
        "snapshots" => quota.snapshots = count()?,
        "pids" => quota.pids = count()?,
        "memory" => quota.memory = bytes()?,
        "disk" => quota.disk = bytes()?,
        "io" => quota.io = bytes()?.map(|rate| rate.max(1)),
        "iops" => quota.iops = count()?.map(|rate| rate.max(1)),
        "images" => quota.images = bytes()?,
        "cpus" => {
            quota.cpus = match value {
                "none" => None,
                _ => Some(
                    value
                        .parse()
                        .ok()
                        .filter(|cpus: &f64| (0.01..=10_000.0).contains(cpus))
                        .with_context(wrong)?,
                ),
            };
        }
        class => {
            let class = Class::ALL
                .into_iter()
                .find(|known| known.as_str() == class && *known != Class::Rbd)
                .with_context(|| {
                    format!("{text:?}: there is no quota for {key}: see kraud tenant quota --help")
                })?;
            match bytes()? {
                Some(bytes) => quota.volumes.insert(class, bytes),
                None => quota.volumes.remove(&class),
            };
        }
    }
    Ok(())
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print the names only
    #[arg(short, long)]
    quiet: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The tenants
    #[arg(required = true, value_name = "TENANT")]
    names: Vec<Namespace>,
    /// With all they have: containers, volumes, snapshots, images
    #[arg(short, long)]
    force: bool,
}

/// Runs what asks the daemon at `place`.
pub(crate) fn asking<T>(
    place: &cli::Place,
    ask: impl AsyncFnOnce(Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let config = Config::load(place)?;
    let client = Client::new(Host::Unix(config.socket));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(ask(client))
}

/// Asks the daemon and prints what it says.
pub(crate) fn run(options: &cli::Tenant) -> anyhow::Result<ExitCode> {
    asking(&options.place, async |client| {
        match &options.command {
            Command::Create(create) => {
                let wanted = TenantCreate {
                    name: create.name.clone(),
                };
                let made = client.tenant_create(&wanted).await?;
                match create.output {
                    _ if create.quiet => term::line(&made.owner.secret)?,
                    Format::Json => term::json(&made)?,
                    Format::Table => {
                        let mut facts = Table::of_facts();
                        facts.row(["tenant".to_owned(), made.tenant.name.to_string()]);
                        facts.row(["token".to_owned(), made.owner.secret]);
                        facts.print()?;
                        eprintln!(
                            "the token is shown this once: hand it to the owner, for `kra login`"
                        );
                    }
                }
            }
            Command::Ls(list) => {
                let tenants = client.tenants().await?;
                match list.output {
                    _ if list.quiet => {
                        let names: String = tenants
                            .iter()
                            .map(|tenant| format!("{}\n", tenant.name))
                            .collect();
                        term::print(&names)?;
                    }
                    Format::Json => term::json(&tenants)?,
                    Format::Table => {
                        let mut table =
                            Table::new(&["NAME", ">CONTAINERS", ">VOLUMES", ">IMAGES", "CREATED"]);
                        for tenant in tenants {
                            table.row([
                                tenant.name.to_string(),
                                tenant.containers.to_string(),
                                tenant.volumes.to_string(),
                                tenant.images.to_string(),
                                term::age(tenant.created, Time::now()),
                            ]);
                        }
                        table.print()?;
                    }
                }
            }
            Command::Quota(wanted) => {
                let name = wanted.name.as_str();
                if !wanted.changes.is_empty() {
                    let mut quota = client.quota(name).await?;
                    for text in &wanted.changes {
                        change(&mut quota, text)?;
                    }
                    client.quota_set(name, &quota).await?;
                }
                let found = client.quota_use(Some(name)).await?;
                match wanted.output {
                    Format::Json => term::json(&found)?,
                    Format::Table => term::quota::table(&found).print()?,
                }
            }
            Command::Rm(rm) => {
                for name in &rm.names {
                    client.tenant_remove(name.as_str(), rm.force).await?;
                    term::line(name.as_str())?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints what the server is trusted by, after making it anew where that is wanted.
pub(crate) fn fingerprint(options: &cli::Authority, rotate: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(&options.place)?;
    asking(&options.place, async |client| {
        let mut found = if rotate {
            client.authority_rotate().await?
        } else {
            client.authority().await?
        };
        if let Some(files) = &config.certificate {
            // The operator's own is known by itself.
            let text = std::fs::read_to_string(&files.certificate).with_context(|| {
                format!("reading the certificate {}", files.certificate.display())
            })?;
            let chain = identity::certificates(&text)?;
            let first = chain
                .first()
                .with_context(|| format!("{} holds no certificate", files.certificate.display()))?;
            found.fingerprint = identity::fingerprint(first);
        }
        match options.output {
            cli::Output::Json => term::json(&found)?,
            cli::Output::Table => term::line(&found.fingerprint)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_quotas() {
        let mut quota = native::Quota::default();
        for text in [
            "containers=3",
            "memory=4G",
            "cpus=1.5",
            "nfs=10G",
            "lv2=1G",
            "pids=100",
        ] {
            change(&mut quota, text).unwrap();
        }
        assert_eq!((quota.containers, quota.memory), (Some(3), Some(4 << 30)));
        assert_eq!((quota.cpus, quota.volumes.len()), (Some(1.5), 2));
        for text in ["memory=none", "lv2=none", "cpus=none"] {
            change(&mut quota, text).unwrap();
        }
        assert_eq!(
            (quota.memory, quota.cpus, quota.volumes.len()),
            (None, None, 1)
        );
        for bad in [
            "",
            "memory",
            "memory=x",
            "containers=-1",
            "cpus=0",
            "cpus=NaN",
            "rbd=1G",
            "apples=1G",
        ] {
            assert!(change(&mut quota, bad).is_err(), "{bad}");
        }
    }
}
