//! One operation's way to one repository: requests with authorization and patience.
//!
//! Owns sending, renewing authorization after a 401 and trying again after 429 and 5xx. What
//! is asked, and what an answer means, is the callers' matter.
//! Source: OCI distribution specification v1.1, "Endpoints".

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, RETRY_AFTER},
};
use types::{Error, Reference, Result};

use super::{auth::Authorizer, fault, fault::Fault, outside::Http};

/// What an error answer may weigh.
const ERROR_LIMIT: usize = 64 << 10;
/// The longest pause that a registry can ask for with `Retry-After`.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a body may stand still.
const STALL: Duration = Duration::from_secs(60);
/// How long an answer may take to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How often and how patiently things are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts in all for one request or one layer.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(500),
        }
    }
}

impl Patience {
    /// The pause after `failures` (at least 1) failures.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        self.pause
            .saturating_mul(1 << failures.saturating_sub(1).min(10))
            .min(LONGEST_PAUSE)
    }
}

/// A repository, reached.
pub(crate) struct Connection {
    pub(crate) http: Http,
    /// `http://localhost:5000/`
    pub(crate) base: Url,
    /// `library/busybox`
    pub(crate) path: String,
    pub(crate) auth: Authorizer,
    pub(crate) patience: Patience,
}

impl Connection {
    /// A URL of the repository: `tail` is `manifests/latest`.
    pub(crate) fn url(&self, tail: &str) -> Result<Url, Fault> {
        let text = format!("v2/{}/{tail}", self.path);
        self.base
            .join(&text)
            .map_err(|source| Fault::Own(Error::invalid(format!("invalid URL {text}: {source}"))))
    }

    /// One request that may be repeated; the answer's status is a success.
    pub(crate) async fn get(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response, Fault> {
        self.send(method, url, headers, None).await
    }

    /// The same with a body in memory.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, Fault> {
        let mut failures = 0;
        loop {
            let make = || {
                let request = self
                    .http
                    .request(method.clone(), url.clone())
                    .headers(headers.clone());
                match &body {
                    Some(body) => request.body(body.clone()),
                    None => request,
                }
            };
            let (fault, asked_pause) = match self.exchange(&method, url, make).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let pause = retry_after(response.headers());
                    (answer_fault(response, url).await, pause)
                }
                Err(fault) => (fault, None),
            };
            failures += 1;
            if !fault.may_pass() || failures >= self.patience.attempts {
                return Err(fault);
            }
            tokio::time::sleep(asked_pause.unwrap_or_else(|| self.patience.pause(failures))).await;
        }
    }

    /// One request whose body cannot be made twice; a 401 is final.
    pub(crate) async fn send_once(
        &self,
        request: reqwest::RequestBuilder,
        method: Method,
        url: &Url,
    ) -> Result<Response, Fault> {
        self.http.may_reach(url)?;
        let grant = self
            .auth
            .grant(&self.http)
            .await
            .map_err(|fault| fault.during(method.clone(), url))?;
        let request = match grant.header {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        };
        match request.send().await {
            Ok(response) if response.status().is_success() => Ok(response),
            Ok(response) => Err(answer_fault(response, url).await),
            Err(source) => Err(fault::from_transport(source, url).await.during(method, url)),
        }
    }

    /// Sends what `make` makes, a second time with new authorization when the first is
    /// answered 401.
    async fn exchange(
        &self,
        method: &Method,
        url: &Url,
        make: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Response, Fault> {
        self.http.may_reach(url)?;
        let mut again = true;
        loop {
            let grant = self
                .auth
                .grant(&self.http)
                .await
                .map_err(|fault| fault.during(method.clone(), url))?;
            let request = match &grant.header {
                Some(header) => make().header(AUTHORIZATION, header.clone()),
                None => make(),
            };
            // The deadline is for the answer to begin, a body may take as long as it needs.
            let response = match tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(source)) => {
                    return Err(fault::from_transport(source, url)
                        .await
                        .during(method.clone(), url));
                }
                Err(_) => {
                    return Err(Fault::Unreachable("context deadline exceeded".into())
                        .during(method.clone(), url));
                }
            };
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || !again || !self.auth.refused(response.headers(), &grant).await {
                return Ok(response);
            }
            again = false;
        }
    }
}

/// The fault that a failed `response` stands for.
pub(crate) async fn answer_fault(response: Response, url: &Url) -> Fault {
    let (status, headers) = (response.status(), response.headers().clone());
    // The status says enough where the body cannot be read.
    let body = read_bounded(response, ERROR_LIMIT, url)
        .await
        .unwrap_or_default();
    fault::from_answer(status, &headers, &body)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// The whole body, refused when it weighs more than `limit` bytes.
pub(crate) async fn read_bounded(
    mut response: Response,
    limit: usize,
    url: &Url,
) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = next_chunk(&mut response, url).await? {
        if body.len() + chunk.len() > limit {
            return Err(Error::invalid(format!(
                "the answer of {url} is larger than {limit} bytes"
            ))
            .into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The next bytes of a body; a body that stands still for [`STALL`] is broken.
pub(crate) async fn next_chunk(response: &mut Response, url: &Url) -> Result<Option<Bytes>, Fault> {
    match tokio::time::timeout(STALL, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(source)) => Err(fault::from_transport(source, url)
            .await
            .during(Method::GET, url)),
        Err(_) => Err(Fault::Unreachable("the download stalled".into()).during(Method::GET, url)),
    }
}

/// The scope of a token for `actions` (`pull`, `pull,push`) on a repository.
pub(crate) fn scope(path: &str, actions: &str) -> String {
    format!("repository:{path}:{actions}")
}

/// The host that serves a reference's registry.
pub(crate) fn host_of(reference: &Reference) -> &str {
    match reference.domain() {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}
