//! `kra login`, `kra logout`, `kra context`, `kra whoami`: where one works, and as whom.

use std::io::{self, IsTerminal as _, Read as _};

use clap::{Args, Subcommand};
use client::{Client, Host, Trust};
use serde::Serialize;
use term::{Format, Table};
use types::{Role, Time};

use crate::{
    contexts::{Context, Contexts},
    exit::{Code, Failure, Outcome},
    session::{Session, host_and_fingerprint, trust_of_environment, variable},
};

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The kraud: https://name:port [default: KR_HOST]
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// What `kraud fingerprint` prints on the server, where no public authority has signed its certificate
    #[arg(long, value_name = "HEX", env = "KR_FINGERPRINT")]
    fingerprint: Option<String>,
    /// Read the token from standard input
    #[arg(long)]
    token_stdin: bool,
    /// What to call this login [default: the namespace]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the logins
    #[command(after_help = "Examples:\n  kra context ls\n  kra context ls -o json")]
    Ls {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Use a login from now on
    #[command(after_help = "Examples:\n  kra context use shop")]
    Use {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The token: of the environment, of standard input, or typed in.
fn ask_token(from_input: bool) -> Outcome<String> {
    let failed = |error| Failure::io("reading the token", error);
    let token = if from_input {
        let mut text = String::new();
        io::stdin()
            .take(10_000)
            .read_to_string(&mut text)
            .map_err(failed)?;
        text
    } else if let Some(token) = variable("KR_ACCESS_TOKEN") {
        token
    } else if io::stdin().is_terminal() {
        rpassword::prompt_password("Token: ").map_err(failed)?
    } else {
        return Err(Failure::usage("no token was given")
            .hint("set KR_ACCESS_TOKEN, or give it on standard input with --token-stdin"));
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(Failure::usage("the token is empty"));
    }
    Ok(token)
}

pub(crate) async fn login(host: Option<&str>, options: &Login) -> Outcome {
    let text = options
        .url
        .as_deref()
        .or(host)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| {
            Failure::usage("which kraud?").hint("kra login https://name:port, or KR_HOST")
        })?;
    let (host, pinned) = host_and_fingerprint(text)?;
    if let Host::Unix(_) = host {
        return Err(Failure::usage(
            "over the socket of the machine no login is needed",
        ));
    }
    let trust = match (pinned, &options.fingerprint) {
        (Some(trust), _) => trust,
        (None, Some(text)) => Trust::fingerprint(text)?,
        (None, None) => trust_of_environment()?.unwrap_or(Trust::Public),
    };
    let token = ask_token(options.token_stdin)?;
    let client = Client::remote(host.clone(), Some(token.clone()), &trust)?;
    let who = client.whoami().await?;
    let (fingerprint, authorities) = match trust {
        Trust::Fingerprint(fingerprint) => {
            // Those stay when the server's certificate is another one day.
            (Some(fingerprint), client.authority().await?.authorities)
        }
        _ => (None, String::new()),
    };
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| who.namespace.to_string());
    let mut contexts = Contexts::load()?;
    contexts.contexts.insert(
        name.clone(),
        Context {
            host: host.to_string(),
            token,
            namespace: who.namespace.clone(),
            role: who.role,
            fingerprint,
            authorities,
        },
    );
    contexts.current = Some(name.clone());
    contexts.save()?;
    term::line(&format!(
        "logged in to {host} as {} of {} (context {name})",
        who.role, who.namespace
    ))?;
    Ok(())
}

/// Forgets a login. The token stays good: `kra token revoke` ends it.
pub(crate) fn logout(name: Option<&str>) -> Outcome {
    let mut contexts = Contexts::load()?;
    let name = match contexts.chosen(name)? {
        Some((name, _)) => name.to_owned(),
        None => return Err(Failure::usage("there is no login to forget")),
    };
    contexts.contexts.remove(&name);
    if contexts.current.as_deref() == Some(&name) {
        contexts.current = None;
    }
    contexts.save()?;
    term::line(&name)?;
    Ok(())
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    host: &'a str,
    namespace: String,
    role: Role,
    current: bool,
}

pub(crate) fn context(command: &ContextCommand) -> Outcome {
    let mut contexts = Contexts::load()?;
    match command {
        ContextCommand::Ls { output } => {
            let shown: Vec<Shown<'_>> = contexts
                .contexts
                .iter()
                .map(|(name, context)| Shown {
                    name,
                    host: &context.host,
                    namespace: context.namespace.to_string(),
                    role: context.role,
                    current: contexts.current.as_deref() == Some(name),
                })
                .collect();
            match output {
                Format::Json => term::json(&shown)?,
                Format::Table => {
                    let mut table = Table::new(&["NAME", "NAMESPACE", "ROLE", "HOST"]);
                    for one in shown {
                        let mark = if one.current { " *" } else { "" };
                        table.row([
                            format!("{}{mark}", one.name),
                            one.namespace,
                            one.role.to_string(),
                            one.host.to_owned(),
                        ]);
                    }
                    table.print()?;
                }
            }
        }
        ContextCommand::Use { name } => {
            contexts.chosen(Some(name))?;
            contexts.current = Some(name.clone());
            contexts.save()?;
            term::line(name)?;
        }
    }
    Ok(())
}

pub(crate) async fn whoami(session: &Session, options: &Show) -> Outcome {
    let who = session.client.whoami().await.map_err(|error| {
        Failure::from(error).hint_if(Code::Forbidden, || {
            "kra login shows kraud a token".to_owned()
        })
    })?;
    match options.output {
        Format::Json => term::json(&who)?,
        Format::Table => {
            let mut facts = Table::of_facts();
            facts.row(["namespace".into(), who.namespace.to_string()]);
            facts.row(["role".into(), who.role.to_string()]);
            if let Some(token) = &who.token {
                facts.row(["token".into(), token.to_string()]);
            }
            if let Some(expires) = who.expires {
                facts.row(["expires".into(), when(expires)]);
            }
            facts.row(["host".into(), session.client.host().to_string()]);
            if let Some(context) = &session.context {
                facts.row(["context".into(), context.clone()]);
            }
            facts.print()?;
        }
    }
    Ok(())
}

pub(crate) async fn usage(session: &Session, options: &Show) -> Outcome {
    let found = session.client.quota_use(None).await?;
    match options.output {
        Format::Json => term::json(&found)?,
        Format::Table => term::quota::table(&found).print()?,
    }
    Ok(())
}

/// A time to come.
pub(crate) fn when(time: Time) -> String {
    term::moment(time)
}
