//! Registries on behalf of those who are not to reach the networks around the machine: no name,
//! token server, redirection or upload address leads there.

use std::{net::SocketAddr, ops::Deref, sync::Arc};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::{Attempt, Policy},
};
use types::{
    Error,
    address::{is_inside, is_public},
};

use super::fault::Fault;

/// What is said of an address that is not public.
fn refusal(host: &str) -> String {
    format!(
        "{host} is within the machine's own networks: for a tenant this is not offered; the operator can"
    )
}

/// An HTTP client, and whether it is for the internet alone.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    public_only: bool,
}

impl Deref for Http {
    type Target = reqwest::Client;
    fn deref(&self) -> &reqwest::Client {
        &self.client
    }
}

impl Http {
    pub(crate) fn new(client: reqwest::Client, public_only: bool) -> Self {
        Self {
            client,
            public_only,
        }
    }

    /// Fails when a URL names an address that is out of bounds. Names are looked at when they
    /// are resolved.
    pub(crate) fn may_reach(&self, url: &Url) -> Result<(), Fault> {
        match url.host_str() {
            Some(host) if self.public_only && is_inside(host) => {
                Err(Fault::Own(Error::forbidden(refusal(host))))
            }
            _ => Ok(()),
        }
    }
}

/// Makes a client of `builder` that reaches the internet alone. Where a proxy is set it is the
/// one who resolves names, and what it reaches is the operator's choice.
pub(crate) fn confine(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let builder = builder.redirect(Policy::custom(follow));
    match PROXIES.iter().any(|name| std::env::var_os(name).is_some()) {
        true => builder,
        false => builder.dns_resolver(Arc::new(PublicNames)),
    }
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    /// As reqwest's own policy.
    const MOST: usize = 10;
    match attempt.url().host_str() {
        Some(host) if is_inside(host) => {
            let refusal = refusal(host);
            attempt.error(refusal)
        }
        _ if attempt.previous().len() > MOST => attempt.error("too many redirects"),
        _ => attempt.follow(),
    }
}

/// The system's resolver, without the addresses that are not public.
struct PublicNames;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|found| is_public(found.ip())).collect();
            if public.is_empty() {
                return Err(refusal(name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine's own name leads to itself.
    #[tokio::test]
    async fn names_and_addresses_within_are_not_reached() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let http = Http::new(confine(reqwest::Client::builder()).build().unwrap(), true);
        let url = |text: &str| Url::parse(&format!("http://{text}:{port}/")).unwrap();
        let words = |fault: Fault| fault.into_error().message;
        let refused = http.may_reach(&url("127.0.0.1")).unwrap_err();
        assert!(words(refused).contains("not offered"));
        assert!(http.may_reach(&url("[::1]")).is_err());
        http.may_reach(&url("registry.example.com")).unwrap();
        // What the names of others resolve to is only known then.
        let error = http.get(url("localhost")).send().await.unwrap_err();
        assert!(format!("{error:?}").contains("not offered"), "{error:?}");
        let open = Http::new(reqwest::Client::new(), false);
        open.may_reach(&url("127.0.0.1")).unwrap();
    }
}
