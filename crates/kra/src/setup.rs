//! `kra setup`: makes other programs work with a kraud on the network.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use client::Host;
use rcgen::KeyPair;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use types::{
    Error,
    native::{Certificate, CertificateCreate, Whoami},
};

use crate::{
    contexts::{directory, write_private},
    exit::{Failure, Outcome},
    login::when,
    session::Session,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a docker context with a client certificate of its own; again renews it
    #[command(after_help = DOCKER_EXAMPLES)]
    Docker(Docker),
    /// What kubectl needs, once this kraud serves its API
    #[command(after_help = "Examples:\n  kra setup kubectl")]
    Kubectl,
    /// What S3 clients need, once this kraud serves S3
    #[command(after_help = "Examples:\n  kra setup s3")]
    S3,
    /// What WebDAV clients need, once this kraud serves WebDAV
    #[command(after_help = "Examples:\n  kra setup webdav")]
    Webdav,
}

const DOCKER_EXAMPLES: &str = "\
Examples:
  kra setup docker --use
  kra setup docker --name work --days 1

docker compose, and programs that read docker's contexts, work with it then. For those that read
only the environment, such as docker-py:
  eval \"$(kra setup docker --env)\"";

#[derive(Debug, Args)]
pub(crate) struct Docker {
    /// The context's name [default: kraud.NAMESPACE]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Make it docker's current context
    #[arg(long = "use")]
    make_current: bool,
    /// How long the certificate is good for, in days
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=30))]
    days: u64,
    /// Print what a shell needs instead of making a context: DOCKER_HOST and so on
    #[arg(long, conflicts_with_all = ["make_current", "name"])]
    env: bool,
}

pub(crate) async fn run(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Docker(options) => docker(session, &options).await,
        Command::Kubectl => Err(not_yet("kubectl", "a Kubernetes API")),
        Command::S3 => Err(not_yet("S3 clients", "S3")),
        Command::Webdav => Err(not_yet("WebDAV clients", "WebDAV")),
    }
}

fn not_yet(clients: &str, what: &str) -> Failure {
    Error::not_implemented(format!(
        "setting up {clients}: this kraud does not serve {what} yet"
    ))
    .into()
}

/// A certificate with its key.
struct Credentials {
    signed: Certificate,
    /// PEM.
    key: String,
}

impl Credentials {
    async fn ask(session: &Session, days: u64) -> Outcome<Self> {
        let key = KeyPair::generate()
            .map_err(|error| Failure::io("making a key", io::Error::other(error)))?;
        let wanted = CertificateCreate {
            public_key: key.public_key_pem(),
            seconds: days * 86_400,
        };
        Ok(Self {
            signed: session.client.certificate_create(&wanted).await?,
            key: key.serialize_pem(),
        })
    }

    /// Writes what docker's clients look for.
    fn write(&self, folder: &Path) -> Outcome {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            write_private(&path, text.as_bytes())
                .map_err(|error| Failure::io(&format!("writing {}", path.display()), error))
        };
        write("key.pem", &self.key)?;
        write("cert.pem", &self.signed.certificate)?;
        if self.signed.authorities.is_empty() {
            // What everybody trusts: an old one would be trusted alone.
            match fs::remove_file(folder.join("ca.pem")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::io("removing an old ca.pem", error));
                }
                _ => return Ok(()),
            }
        }
        write("ca.pem", &self.signed.authorities)
    }
}

/// What docker's clients find in the environment to speak to the kraud of a session. The
/// certificate is kept for the next time, until an hour before its end.
pub(crate) async fn environment(session: &Session) -> Outcome<Vec<(&'static str, String)>> {
    /// Days.
    const LIFE: u64 = 1;
    let host = session.client.host();
    if let Host::Unix(path) = host {
        return Ok(vec![("DOCKER_HOST", format!("unix://{}", path.display()))]);
    }
    let who = session.client.whoami().await?;
    // With another token, or on another kraud, it is another one.
    let about = format!(
        "{host} {:?}",
        who.token.as_ref().map(types::TokenId::as_str)
    );
    let digest: String = Sha256::digest(about)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = directory()?.join("certificates").join(digest);
    let folder = std::path::absolute(&folder)
        .map_err(|error| Failure::io("finding the folder of certificates", error))?;
    let until = folder.join("until");
    let good = fs::read_to_string(&until)
        .ok()
        .and_then(|text| types::Time::parse(text.trim()))
        .is_some_and(|until| {
            until.since(types::Time::now()) > std::time::Duration::from_secs(3600)
        });
    if !good {
        let credentials = Credentials::ask(session, LIFE).await?;
        credentials.write(&folder)?;
        write_private(&until, credentials.signed.expires.to_string().as_bytes())
            .map_err(|error| Failure::io(&format!("writing {}", until.display()), error))?;
    }
    Ok(vec![
        ("DOCKER_HOST", format!("tcp://{}", host.authority())),
        ("DOCKER_TLS_VERIFY", "1".to_owned()),
        ("DOCKER_CERT_PATH", folder.display().to_string()),
    ])
}

async fn docker(session: &Session, options: &Docker) -> Outcome {
    let host = session.client.host();
    if let Host::Unix(path) = host {
        return Err(Failure::usage(format!(
            "{host} is this machine's: docker needs no certificate for it"
        ))
        .hint(format!("export DOCKER_HOST=unix://{}", path.display())));
    }
    let who = session.client.whoami().await?;
    let credentials = Credentials::ask(session, options.days).await?;
    let address = format!("tcp://{}", host.authority());
    if options.env {
        let folder = directory()?.join("docker").join(who.namespace.as_str());
        credentials.write(&folder)?;
        let folder = std::path::absolute(&folder)
            .map_err(|error| Failure::io("finding the folder of certificates", error))?;
        let quoted = folder.display().to_string().replace('\'', r"'\''");
        term::print(&format!(
            "export DOCKER_HOST='{address}'\nexport DOCKER_TLS_VERIFY=1\nexport DOCKER_CERT_PATH='{quoted}'\nunset DOCKER_CONTEXT\n"
        ))?;
        return Ok(());
    }
    let name = match &options.name {
        Some(name) => context_name(name)?,
        None => format!("kraud.{}", who.namespace),
    };
    let config = docker_config()?;
    write_context(&config, &name, &address, &who, &credentials)?;
    if options.make_current {
        make_current(&config, &name)?;
    }
    term::line(&name)?;
    eprintln!(
        "the certificate is good until {}; call this again to renew it",
        when(credentials.signed.expires)
    );
    Ok(())
}

/// Names that docker takes for contexts.
fn context_name(name: &str) -> Outcome<String> {
    let fits = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+' | b'-'))
        && name != "default";
    if !fits {
        return Err(Failure::usage(format!(
            "invalid context name {name:?}: want letters, digits, '_', '.', '+' and '-', and not \"default\""
        )));
    }
    Ok(name.to_owned())
}

/// Where docker's command line keeps what is the user's.
fn docker_config() -> Outcome<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".docker")))
        .ok_or_else(|| {
            Failure::usage("neither HOME nor DOCKER_CONFIG says where docker's contexts are")
        })
}

/// Writes a context as `docker context create` does: its facts and its certificates below the
/// SHA-256 of its name.
fn write_context(
    config: &Path,
    name: &str,
    address: &str,
    who: &Whoami,
    credentials: &Credentials,
) -> Outcome {
    let digest = Sha256::digest(name);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let contexts = config.join("contexts");
    credentials.write(&contexts.join("tls").join(&hex).join("docker"))?;
    let facts = json!({
        "Name": name,
        "Metadata": { "Description": format!("kraud: {} of {}", who.role, who.namespace) },
        "Endpoints": { "docker": { "Host": address, "SkipTLSVerify": false } },
    });
    let path = contexts.join("meta").join(&hex).join("meta.json");
    write_private(&path, facts.to_string().as_bytes())
        .map_err(|error| Failure::io(&format!("writing {}", path.display()), error))
}

/// Has docker use the context where none is named.
fn make_current(config: &Path, name: &str) -> Outcome {
    let path = config.join("config.json");
    let about = format!("changing {}", path.display());
    let mut settings: Map<String, Value> = match fs::read(&path) {
        Ok(text) => {
            serde_json::from_slice(&text).map_err(|error| Failure::io(&about, error.into()))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(Failure::io(&about, error)),
    };
    settings.insert("currentContext".to_owned(), name.into());
    let mut text =
        serde_json::to_vec_pretty(&settings).map_err(|error| Failure::io(&about, error.into()))?;
    text.push(b'\n');
    write_private(&path, &text).map_err(|error| Failure::io(&about, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_contexts() {
        for good in ["kraud.shop", "a1", "x_y+z-1"] {
            assert!(context_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "default", ".a", "a/b", "a b"] {
            assert!(context_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_settings_of_docker_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(
            &path,
            r#"{"auths":{"x":{}},"currentContext":"old","plugins":{}}"#,
        )
        .unwrap();
        make_current(folder.path(), "kraud.shop").unwrap();
        let settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(settings["currentContext"], "kraud.shop");
        assert!(settings["auths"]["x"].is_object() && settings["plugins"].is_object());
        fs::write(&path, "not json").unwrap();
        assert!(make_current(folder.path(), "kraud.shop").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not json");
    }
}
