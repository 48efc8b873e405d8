//! `kraud tenant`, `kraud fingerprint`, `kraud rotate-authority`: whom the operator lets in. They
//! ask the running daemon, by the same API as kra.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use client::{Client, Host};
use term::{Format, Table};
use types::{Namespace, Time, native::TenantCreate};

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
