//! The door's certificates: of kraud's own authority, or the operator's; renewed while it serves.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use identity::Identities;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use types::Time;

use crate::config::{Config, Listen};

/// How long a certificate of kraud's own authority is good for, and how long before its end
/// another takes its place.
const LIFE: Duration = Duration::from_secs(90 * 86_400);
const RENEWED: Duration = Duration::from_secs(30 * 86_400);
/// How often it is looked whether anything has changed.
const LOOK: Duration = Duration::from_secs(10);

/// Opens the door, unless there shall be none.
pub(crate) async fn open(
    config: &Config,
    identities: &Identities,
) -> anyhow::Result<Option<api::http::Door>> {
    let (address, must) = match config.listen {
        Listen::None => return Ok(None),
        Listen::Usual(address) => (address, false),
        Listen::At(address) => (address, true),
    };
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) if must => {
            return Err(error).with_context(|| format!("listening on {address}"));
        }
        Err(error) => {
            tracing::warn!(%address, %error, "the API is not served over the network: choose an address with --listen, or switch it off with --listen none");
            return Ok(None);
        }
    };
    let keeper = Keeper {
        identities: identities.clone(),
        names: config.names.clone(),
        files: config.certificate.clone(),
    };
    let made = keeper.make().await?;
    let (sender, receiver) = watch::channel(made.config.clone());
    tokio::spawn(keeper.keep(made, sender));
    Ok(Some(api::http::Door {
        listener,
        config: receiver,
    }))
}

/// The operator's certificate, and where its key is.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

struct Keeper {
    identities: Identities,
    names: Vec<String>,
    files: Option<Files>,
}

/// What a configuration was made of: made again when it differs.
#[derive(PartialEq)]
struct Basis {
    authority: String,
    addresses: BTreeSet<IpAddr>,
    written: Vec<Option<SystemTime>>,
}

struct Made {
    basis: Basis,
    config: Arc<ServerConfig>,
    expires: Option<Time>,
}

impl Keeper {
    async fn basis(&self) -> anyhow::Result<Basis> {
        let authority = self.identities.authority_fingerprint()?.0;
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || Basis::look(authority, files.as_ref()))
            .await
            .context("looking at what the certificate is made of")
    }
}

impl Basis {
    fn look(authority: String, files: Option<&Files>) -> Self {
        let written = |path: &Path| {
            std::fs::metadata(path)
                .and_then(|meta| meta.modified())
                .ok()
        };
        Self {
            authority,
            addresses: addresses(),
            written: match files {
                Some(files) => vec![written(&files.certificate), written(&files.key)],
                None => Vec::new(),
            },
        }
    }
}

impl Keeper {
    async fn make(&self) -> anyhow::Result<Made> {
        let (identities, names, files) = (
            self.identities.clone(),
            self.names.clone(),
            self.files.clone(),
        );
        let basis = self.basis().await?;
        let addresses: Vec<IpAddr> = basis.addresses.iter().copied().collect();
        let (config, expires) = tokio::task::spawn_blocking(move || {
            server_config(&identities, names, &addresses, files.as_ref())
        })
        .await
        .context("making the certificate")??;
        Ok(Made {
            basis,
            config: Arc::new(config),
            expires,
        })
    }

    /// Makes the configuration again whenever that is needed. What is wrong with a new one leaves
    /// the old one in place.
    async fn keep(self, mut made: Made, sender: watch::Sender<Arc<ServerConfig>>) {
        let mut failed = false;
        let mut authority = self.identities.authority_changes();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Ok(()) = authority.changed() => {}
                () = sender.closed() => return,
            }
            let old = made
                .expires
                .is_some_and(|expires| expires.since(Time::now()) < RENEWED);
            match self.basis().await {
                Ok(basis) if basis == made.basis && !old => continue,
                _ => {}
            }
            match self.make().await {
                Ok(new) => {
                    tracing::info!("the door has another certificate");
                    made = new;
                    failed = false;
                    sender.send_replace(made.config.clone());
                }
                Err(error) if failed => tracing::debug!(%error, "still no new certificate"),
                Err(error) => {
                    failed = true;
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the door keeps its old certificate"
                    );
                }
            }
        }
    }
}

fn server_config(
    identities: &Identities,
    mut names: Vec<String>,
    addresses: &[IpAddr],
    files: Option<&Files>,
) -> anyhow::Result<(ServerConfig, Option<Time>)> {
    let (chain, key, expires) = match files {
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(&files.certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .with_context(|| {
                    format!("reading the certificate {}", files.certificate.display())
                })?;
            if chain.is_empty() {
                bail!("{} holds no certificate", files.certificate.display());
            }
            let key = PrivateKeyDer::from_pem_file(&files.key)
                .with_context(|| format!("reading the key {}", files.key.display()))?;
            (chain, key, None)
        }
        None => {
            names.push("localhost".into());
            if let Ok(name) = rustix::system::uname().nodename().to_str()
                && !names.iter().any(|known| known == name)
                && is_name(name)
            {
                names.push(name.to_owned());
            }
            let made = identities.server_identity(&names, addresses, LIFE)?;
            (
                made.chain.into_iter().map(CertificateDer::from).collect(),
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.key)),
                Some(made.expires),
            )
        }
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in identities.client_roots()? {
        roots
            .add(CertificateDer::from(root))
            .context("trusting kraud's own authority")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("checking clients' certificates")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing versions of TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .context("using the certificate with its key")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, expires))
}

/// Whether a host name may stand in a certificate.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// The addresses of this machine under which it may be spoken to: not those of containers'
/// networks, which come and go.
fn addresses() -> BTreeSet<IpAddr> {
    const OF_CONTAINERS: [&str; 5] = ["kr", "kv", "veth", "docker", "br-"];
    let mut found: BTreeSet<IpAddr> = [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    ]
    .into();
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return found;
    };
    for interface in interfaces {
        let name = interface.interface_name.as_str();
        if OF_CONTAINERS.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let Some(address) = interface.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            found.insert(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6()
            && !v6.ip().is_unicast_link_local()
        {
            found.insert(v6.ip().into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "kraud.example", "n-1.example.com", "under_score"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a b", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
