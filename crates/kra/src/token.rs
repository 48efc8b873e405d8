//! `kra token`: who else may work in the namespace.

use std::time::Duration;

use clap::{Args, Subcommand};
use term::{Format, Table};
use types::{
    Namespace, Role, Time,
    native::{Token, TokenCreate},
};

use crate::{
    exit::{Failure, Outcome},
    login::when,
    session::Session,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token, and print it: it is shown this once
    #[command(
        after_help = "Examples:\n  kra token create --role reader --for dashboard\n  kra token create --role push --expires 90d -q"
    )]
    Create(Create),
    /// List the tokens
    #[command(after_help = "Examples:\n  kra token ls\n  kra token ls -o json")]
    Ls(List),
    /// Take tokens back, at once: what is connected with them is cut off
    #[command(after_help = "Examples:\n  kra token revoke abcdefghij12")]
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What it is good for: owner, reader, push (images, for CI), or for the operator: operator
    #[arg(long, default_value = "owner")]
    role: Role,
    /// What it is for, in your words
    #[arg(long = "for", value_name = "TEXT", default_value = "")]
    description: String,
    /// When it ends: in so many hours or days (12h, 90d), or at an RFC 3339 time [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// For the operator: the tenant it is for
    #[arg(long, value_name = "TENANT")]
    namespace: Option<Namespace>,
    /// Print nothing but the token
    #[arg(short, long)]
    quiet: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// For the operator: the tenant whose tokens they are
    #[arg(long, value_name = "TENANT")]
    namespace: Option<Namespace>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Their ids, as `kra token ls` shows them
    #[arg(required = true, value_name = "TOKEN")]
    ids: Vec<String>,
    /// For the operator: the tenant whose tokens they are
    #[arg(long, value_name = "TENANT")]
    namespace: Option<Namespace>,
}

/// `12h`, `90d`, or a time.
fn ends(text: &str, now: Time) -> Outcome<Time> {
    let wrong = || {
        Failure::usage(format!(
            "invalid --expires {text:?}: want hours or days such as 12h or 90d, or a time such as 2030-01-31T12:00:00Z"
        ))
    };
    if let Some(time) = Time::parse(text) {
        return Ok(time);
    }
    let (number, hours) = match (text.strip_suffix('h'), text.strip_suffix('d')) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 24),
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let later = Duration::from_secs(u64::from(number) * hours * 3600);
    i64::try_from(later.as_secs())
        .map(|seconds| Time::from_unix(now.unix_seconds().saturating_add(seconds), 0))
        .map_err(|_| wrong())
}

pub(crate) async fn run(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Create(options) => {
            let expires = options
                .expires
                .as_deref()
                .map(|text| ends(text, Time::now()))
                .transpose()?;
            let made = session
                .client
                .token_create(&TokenCreate {
                    role: options.role,
                    description: options.description,
                    expires,
                    namespace: options.namespace,
                })
                .await?;
            match options.output {
                _ if options.quiet => term::line(&made.secret)?,
                Format::Json => term::json(&made)?,
                Format::Table => {
                    let mut facts = Table::of_facts();
                    facts.row(["id".into(), made.token.id.to_string()]);
                    facts.row(["role".into(), made.token.role.to_string()]);
                    facts.row(["token".into(), made.secret]);
                    facts.print()?;
                    eprintln!("the token is shown this once");
                }
            }
        }
        Command::Ls(options) => {
            let namespace = options.namespace.as_ref().map(Namespace::as_str);
            let tokens = session.client.tokens(namespace).await?;
            match options.output {
                Format::Json => term::json(&tokens)?,
                Format::Table => table(&tokens).print()?,
            }
        }
        Command::Revoke(options) => {
            let namespace = options.namespace.as_ref().map(Namespace::as_str);
            for id in &options.ids {
                session.client.token_revoke(id, namespace).await?;
                term::line(id)?;
            }
        }
    }
    Ok(())
}

fn table(tokens: &[Token]) -> Table {
    let now = Time::now();
    let mut table = Table::new(&["ID", "ROLE", "FOR", "CREATED", "LAST USED", "EXPIRES"]);
    for token in tokens {
        table.row([
            token.id.to_string(),
            token.role.to_string(),
            token.description.clone(),
            term::age(token.created, now),
            token
                .last_used
                .map_or_else(|| "never".to_owned(), |used| term::age(used, now)),
            token.expires.map_or_else(|| "never".to_owned(), when),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_tokens() {
        let now = Time::from_unix(1_000_000, 0);
        let seconds = |text| ends(text, now).map(Time::unix_seconds).ok();
        assert_eq!(seconds("12h"), Some(1_000_000 + 12 * 3600));
        assert_eq!(seconds("90d"), Some(1_000_000 + 90 * 86_400));
        assert_eq!(seconds("2030-01-01T00:00:00Z"), Some(1_893_456_000));
        for bad in ["", "h", "-1h", "5", "5m", "tomorrow"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
