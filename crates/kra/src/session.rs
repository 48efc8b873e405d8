//! What every command works with.

use client::{Client, Host, Trust};

use crate::{
    contexts::Contexts,
    exit::{Failure, Outcome},
};

/// The kraud that is spoken to.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    /// The login that is used.
    pub(crate) context: Option<String>,
}

/// A variable of the environment that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A host as it is named, and the fingerprint behind its `#`, so that one value says both.
pub(crate) fn host_and_fingerprint(text: &str) -> Outcome<(Host, Option<Trust>)> {
    let (url, fingerprint) = match text.split_once('#') {
        Some((url, fingerprint)) => (url, Some(fingerprint)),
        None => (text, None),
    };
    let trust = fingerprint.map(Trust::fingerprint).transpose()?;
    let host: Host = url.parse().map_err(Failure::from)?;
    if trust.is_some() && matches!(host, Host::Unix(_)) {
        return Err(Failure::usage(
            "a socket of this machine has no certificate, and so no fingerprint",
        ));
    }
    Ok((host, trust))
}

/// What the environment says of a server's certificate.
pub(crate) fn trust_of_environment() -> Outcome<Option<Trust>> {
    variable("KR_FINGERPRINT")
        .map(|text| Trust::fingerprint(&text))
        .transpose()
        .map_err(Failure::from)
}

impl Session {
    /// Speaks to `host` with the environment's token; else to where `context` is logged in; else
    /// to the kraud of this machine.
    pub(crate) fn new(host: Option<&str>, context: Option<&str>) -> Outcome<Self> {
        let (host, pinned) = host
            .filter(|text| !text.is_empty())
            .map(host_and_fingerprint)
            .transpose()?
            .map_or((None, None), |(host, pinned)| (Some(host), pinned));
        let token = variable("KR_ACCESS_TOKEN");
        if let Some(host @ Host::Unix(_)) = host {
            return Ok(Self {
                client: Client::remote(host, token, &Trust::Public)?,
                context: None,
            });
        }
        let contexts = Contexts::load()?;
        if let (Some(host), Some(name)) = (&host, context)
            && let Some((_, context)) = contexts.chosen(Some(name))?
            && context.host != host.to_string()
        {
            // Its token is nobody else's business.
            return Err(Failure::usage(format!(
                "the context {name} is of {}, not of {host}: name one of the two",
                context.host
            )));
        }
        let known = match (&host, context) {
            // Where the host alone is named, a login there is used.
            (Some(host), None) => contexts
                .contexts
                .iter()
                .find(|(_, context)| context.host == host.to_string())
                .map(|(name, context)| (name.as_str(), context)),
            (None, None) if token.is_some() && contexts.current.is_none() => None,
            _ => contexts.chosen(context)?,
        };
        let trust = match (pinned.or(trust_of_environment()?), known) {
            (Some(trust), _) => trust,
            (None, Some((_, context))) => context.trust(),
            (None, None) => Trust::Public,
        };
        let (host, context) = match (host, known) {
            (Some(host), known) => (host, known),
            (None, Some((name, context))) => (
                context.host.parse().map_err(Failure::from)?,
                Some((name, context)),
            ),
            (None, None) => (Host::default(), None),
        };
        let token = token.or_else(|| context.map(|(_, context)| context.token.clone()));
        Ok(Self {
            client: Client::remote(host, token, &trust)?,
            context: context.map(|(name, _)| name.to_owned()),
        })
    }
}
