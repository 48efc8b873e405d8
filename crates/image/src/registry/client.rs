//! The client: its options, and finding how a registry speaks.
//!
//! Owns the HTTP clients (one that verifies, one for hosts that may be insecure) and the
//! choice between HTTPS and plain HTTP; operations are in the neighbouring files.

use std::{net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Method, Url,
    header::{AUTHORIZATION, HeaderMap},
};
use tokio::sync::OnceCell;
use types::{Error, Reference, Result, error::ResultExt as _};

use super::{
    auth::{Authorizer, Credentials},
    connection::{Connection, Patience, host_of, scope},
    fault,
    fault::Fault,
    outside::{self, Http},
};

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Hosts (`name` or `name:port`) besides loopback ones whose certificate is not verified
    /// and that may speak plain HTTP.
    pub insecure: Vec<String>,
    /// Certificates in PEM form that are trusted besides the system's.
    pub roots: Vec<Vec<u8>>,
    /// How often and how patiently things are tried again.
    pub patience: Patience,
    /// Names this program to registries: `kraud/0.1.0`.
    pub user_agent: String,
}

/// Speaks to registries. Cheap to clone; connections are kept and shared.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    roots: Vec<reqwest::Certificate>,
    /// Made at its first use: reading the system's certificates takes time and fails where
    /// there are none, which matters to nobody who uses loopback registries alone.
    verifying: OnceCell<reqwest::Client>,
    /// For insecure hosts: takes any certificate, and uses no proxy.
    trusting: OnceCell<reqwest::Client>,
    /// Verifies, for those who may reach the internet alone.
    confined: OnceCell<reqwest::Client>,
}

impl Inner {
    fn builder(&self) -> reqwest::ClientBuilder {
        let agent = match self.options.user_agent.as_str() {
            "" => concat!("kraud/", env!("CARGO_PKG_VERSION")),
            given => given,
        };
        reqwest::Client::builder()
            .user_agent(agent)
            .referer(false)
            .connect_timeout(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
    }

    /// The client for hosts that are, or are not, insecure, and for whoever may reach the
    /// internet alone.
    async fn http(self: &Arc<Self>, insecure: bool, public_only: bool) -> Result<Http> {
        let verified = || match self.roots.as_slice() {
            [] => self.builder(),
            roots => self.builder().tls_certs_merge(roots.to_vec()),
        };
        let (cell, builder) = match (public_only, insecure) {
            (true, _) => (&self.confined, outside::confine(verified())),
            (false, false) => (&self.verifying, verified()),
            (false, true) => {
                let builder = self.builder().tls_danger_accept_invalid_certs(true);
                (&self.trusting, builder.no_proxy())
            }
        };
        let client = cell
            .get_or_try_init(|| async {
                let built = tokio::task::spawn_blocking(|| builder.build()).await;
                built
                    .during(|| "preparing the registry client")?
                    .during(|| "preparing the registry client")
            })
            .await?;
        Ok(Http::new(client.clone(), public_only))
    }
}

/// What an operation wants to do with a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Intent<'a> {
    Pull,
    /// Write to it; read from `mounts`, other repositories of the same registry.
    Push {
        mounts: &'a [String],
    },
}

impl Client {
    /// A client with `options`.
    pub fn new(options: Options) -> Result<Self> {
        let mut roots = Vec::new();
        for pem in &options.roots {
            let bundle = reqwest::Certificate::from_pem_bundle(pem);
            roots.extend(bundle.during(|| "reading the trusted certificates")?);
        }
        let inner = Inner {
            options,
            roots,
            verifying: OnceCell::new(),
            trusting: OnceCell::new(),
            confined: OnceCell::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// How patiently things are tried again.
    pub(crate) fn patience(&self) -> Patience {
        self.inner.options.patience
    }

    /// A connection to the repository of `reference`.
    pub(crate) async fn connect(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        intent: Intent<'_>,
    ) -> Result<Connection, Fault> {
        let path = reference.path();
        let scopes = match intent {
            Intent::Pull => vec![scope(path, "pull")],
            Intent::Push { mounts } => {
                let mut scopes = vec![scope(path, "pull,push")];
                scopes.extend(mounts.iter().map(|mount| scope(mount, "pull")));
                scopes
            }
        };
        let auth = Authorizer::new(credentials.clone(), scopes, false);
        self.reach(host_of(reference), path, auth).await
    }

    /// Finds how `host` speaks by asking for `/v2/`.
    pub(crate) async fn reach(
        &self,
        host: &str,
        path: &str,
        auth: Authorizer,
    ) -> Result<Connection, Fault> {
        let public_only = auth.public_only();
        let insecure = !public_only && self.is_insecure(host);
        let http = self.inner.http(insecure, public_only).await?;
        let schemes: &[&str] = if insecure {
            &["https", "http"]
        } else {
            &["https"]
        };
        let mut last = Fault::Own(Error::invalid(format!("invalid registry {host:?}")));
        for scheme in schemes {
            let base = Url::parse(&format!("{scheme}://{host}/"))
                .map_err(|source| Error::invalid(format!("invalid registry {host:?}: {source}")))?;
            match self.ping(&http, &base, &auth).await {
                Ok(()) => {
                    return Ok(Connection {
                        http: http.clone(),
                        base,
                        path: path.to_owned(),
                        auth,
                        patience: self.patience(),
                    });
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Asks `/v2/` without authorization: any answer shows that the registry is there, a 401
    /// how it wants to be asked.
    async fn ping(&self, http: &Http, base: &Url, auth: &Authorizer) -> Result<(), Fault> {
        let url = base
            .join("v2/")
            .map_err(|source| Error::invalid(format!("invalid registry {base}: {source}")))?;
        let none = super::auth::Grant {
            header: None,
            fresh: false,
        };
        http.may_reach(&url)?;
        match http
            .get(url.clone())
            .timeout(Duration::from_secs(15))
            .send()
            .await
        {
            Ok(response) => {
                if response.status() == reqwest::StatusCode::UNAUTHORIZED {
                    auth.refused(response.headers(), &none).await;
                }
                Ok(())
            }
            Err(source) => Err(fault::from_transport(source, &url)
                .await
                .during(Method::GET, &url)),
        }
    }

    /// Loopback hosts and those that the options name.
    fn is_insecure(&self, host: &str) -> bool {
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => host.split(':').next().unwrap_or(host),
        };
        let loopback = bare == "localhost"
            || bare.ends_with(".localhost")
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        loopback
            || self
                .inner
                .options
                .insecure
                .iter()
                .any(|one| one == host || one == bare)
    }

    /// Checks `credentials` against the registry at `server` (a host or URL; empty is Docker
    /// Hub) for `POST /auth`. Gives docker's status text and an identity token or "".
    pub async fn check(&self, credentials: &Credentials, server: &str) -> Result<(String, String)> {
        let bare = server
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = bare.split('/').next().unwrap_or_default();
        let host = if matches!(host, "" | "docker.io" | "index.docker.io") {
            "registry-1.docker.io"
        } else {
            host
        };
        let auth = Authorizer::new(credentials.clone(), [], true);
        let connection = self
            .reach(host, "", auth)
            .await
            .map_err(Fault::into_error)?;
        let url = connection
            .base
            .join("v2/")
            .map_err(|source| Error::invalid(format!("invalid registry {host}: {source}")))?;
        let grant = connection
            .auth
            .grant(&connection.http)
            .await
            .map_err(|fault| fault.during(Method::GET, &url).into_error())?;
        let mut headers = HeaderMap::new();
        headers.extend(grant.header.map(|header| (AUTHORIZATION, header)));
        let request = connection
            .http
            .get(url.clone())
            .headers(headers)
            .timeout(Duration::from_secs(30));
        let status = match request.send().await {
            Ok(response) => response.status(),
            Err(source) => {
                return Err(fault::from_transport(source, &url)
                    .await
                    .during(Method::GET, &url)
                    .into_error());
            }
        };
        if status.is_success() {
            return Ok((
                "Login Succeeded".into(),
                connection.auth.refresh_token().await,
            ));
        }
        let text = format!("login attempt to {url} failed with status: {status}");
        let kind = if status.is_client_error() {
            types::Kind::Unauthorized
        } else {
            types::Kind::System
        };
        Err(Error::new(kind, text))
    }
}

#[cfg(test)]
impl Client {
    /// Reaches `base` as a host that is not loopback would be.
    pub(crate) async fn ping_verified(&self, base: &Url) -> Result<()> {
        let auth = Authorizer::new(Credentials::default(), [], false);
        self.ping(&self.inner.http(false, false).await?, base, &auth)
            .await
            .map_err(Fault::into_error)
    }
}
