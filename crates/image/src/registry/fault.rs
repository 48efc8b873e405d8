//! What can go wrong between here and a registry, in the words that docker's users know.
//!
//! Owns reading a registry's error answers and turning them into [`types::Error`]; decides
//! nothing about retries beyond saying which faults may pass.
//! Source: OCI distribution specification v1.1 ("Error Codes") and RFC 6750, section 3.1.

use std::error::Error as _;

use reqwest::{Method, StatusCode, Url, header::HeaderMap};
use types::{Error, Kind, Reference};

use super::challenge;

/// One entry of a registry's error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: String,
    message: String,
}

impl ApiError {
    fn new(code: &str, message: &str) -> Self {
        let message = if message.is_empty() {
            default_message(code)
        } else {
            message
        };
        Self {
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }

    fn is(&self, code: &str) -> bool {
        self.code == code
    }

    fn text(&self) -> String {
        format!(
            "{}: {}",
            self.code.to_ascii_lowercase().replace('_', " "),
            self.message
        )
    }
}

/// What a registry means when it gives a code without words.
fn default_message(code: &str) -> &'static str {
    match code {
        "UNAUTHORIZED" => "authentication required",
        "DENIED" => "requested access to the resource is denied",
        "MANIFEST_UNKNOWN" => "manifest unknown",
        "NAME_UNKNOWN" => "repository name not known to registry",
        "NAME_INVALID" => "invalid repository name",
        "BLOB_UNKNOWN" => "blob unknown to registry",
        "DIGEST_INVALID" => "provided digest did not match uploaded content",
        "TOOMANYREQUESTS" => "too many requests",
        "UNAVAILABLE" => "service unavailable",
        "UNSUPPORTED" => "The operation is unsupported.",
        _ => "unknown error",
    }
}

/// A failure of one exchange with a registry.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The registry's own words.
    Api {
        status: StatusCode,
        errors: Vec<ApiError>,
    },
    /// The registry wants a user name and password and none were given.
    NoCredentials,
    /// An answer outside the protocol.
    Status(StatusCode, String),
    /// No answer: connection, name or TLS.
    Unreachable(String),
    /// The request that a fault belongs to, for the cases where docker names it.
    During {
        method: Method,
        url: Url,
        fault: Box<Fault>,
    },
    /// Anything of our own, such as a digest that does not fit.
    Own(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl Fault {
    /// The same, led by the request that it belongs to.
    pub(crate) fn during(self, method: Method, url: &Url) -> Self {
        match self {
            Self::NoCredentials | Self::Unreachable(_) | Self::Api { .. } | Self::Status(..) => {
                Self::During {
                    method,
                    url: url.clone(),
                    fault: Box::new(self),
                }
            }
            other => other,
        }
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Api { status, .. } | Self::Status(status, _) => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::Unreachable(_) => true,
            Self::During { fault, .. } => fault.may_pass(),
            Self::NoCredentials | Self::Own(_) => false,
        }
    }

    /// Whether the registry said that there is no such thing.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Api { status, .. } | Self::Status(status, _) if *status == StatusCode::NOT_FOUND)
    }

    /// The fault without the request that met it.
    pub(crate) fn bare(self) -> Self {
        match self {
            Self::During { fault, .. } if !matches!(*fault, Self::Unreachable(_)) => fault.bare(),
            other => other,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Api { errors, .. } => match errors.as_slice() {
                [] => "<nil>".into(),
                [one] => one.text(),
                many => many.iter().fold("errors:\n".to_owned(), |all, one| {
                    format!("{all}{}\n", one.text())
                }),
            },
            Self::NoCredentials => "no basic auth credentials".into(),
            Self::Status(_, text) | Self::Unreachable(text) => text.clone(),
            Self::During { method, url, fault } => {
                format!("{} \"{url}\": {}", verb(method), fault.text())
            }
            Self::Own(error) => error.message.clone(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Api { status, errors } => match errors.first() {
                Some(one) if one.is("UNAUTHORIZED") => Kind::Unauthorized,
                Some(one) if one.is("DENIED") => Kind::Forbidden,
                Some(one)
                    if one.is("MANIFEST_UNKNOWN")
                        || one.is("NAME_UNKNOWN")
                        || one.is("BLOB_UNKNOWN") =>
                {
                    Kind::NotFound
                }
                Some(one) if one.is("TOOMANYREQUESTS") || one.is("UNAVAILABLE") => {
                    Kind::Unavailable
                }
                _ => kind_of(*status),
            },
            Self::Status(status, _) => kind_of(*status),
            Self::NoCredentials => Kind::Unauthorized,
            Self::Unreachable(_) => Kind::System,
            Self::During { fault, .. } => fault.kind(),
            Self::Own(error) => error.kind,
        }
    }

    /// The error of an operation on no repository in particular.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Own(error) => error,
            other => Error::new(other.kind(), other.text()),
        }
    }

    /// The error of a pull of `reference`. Docker answers 404 where the image cannot be had
    /// and 500 for everything else, a refused login too: a client that saw 401 would ask for
    /// a password where none helps.
    pub(crate) fn into_pull_error(self, reference: &Reference) -> Error {
        if let Self::Api { errors, .. } = &self {
            let name = reference.familiar_name();
            let lead = match errors.first() {
                Some(one) if one.is("DENIED") => {
                    format!(
                        "pull access denied for {name}, repository does not exist or may require 'docker login'"
                    )
                }
                Some(one) if one.is("MANIFEST_UNKNOWN") => {
                    format!("manifest for {} not found", reference.familiar())
                }
                Some(one) if one.is("NAME_UNKNOWN") => format!("repository {name} not found"),
                Some(one) => return Error::system(one.text()),
                None => return self.into_error(),
            };
            let cause = errors.first().map(ApiError::text).unwrap_or_default();
            return Error::not_found(format!("{lead}: {cause}"));
        }
        let mut error = self.into_error();
        if matches!(error.kind, Kind::Unauthorized | Kind::Forbidden) {
            error.kind = Kind::System;
        }
        error
    }
}

/// A method as docker's texts write it: `Get`.
fn verb(method: &Method) -> String {
    let text = method.as_str();
    let (first, rest) = text.split_at(text.len().min(1));
    format!("{first}{}", rest.to_ascii_lowercase())
}

fn kind_of(status: StatusCode) -> Kind {
    match status {
        StatusCode::UNAUTHORIZED => Kind::Unauthorized,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
        _ => Kind::System,
    }
}

/// The fault that an answer with a failure status stands for.
pub(crate) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Fault {
    if !status.is_client_error() {
        return Fault::Status(status, format!("received unexpected HTTP status: {status}"));
    }
    let parsed = from_body(status, body);
    let hinted = challenge::parse(headers)
        .into_iter()
        .filter(|one| one.scheme == "bearer")
        .find_map(|one| {
            let code = match one.get("error")? {
                "invalid_token" => "UNAUTHORIZED",
                "insufficient_scope" => "DENIED",
                _ => return None,
            };
            Some(ApiError::new(
                code,
                one.get("error_description").unwrap_or_default(),
            ))
        });
    match (hinted, parsed) {
        (Some(first), Fault::Api { status, mut errors }) => {
            errors.retain(|one| *one != first);
            errors.insert(0, first);
            Fault::Api { status, errors }
        }
        (Some(first), _) => Fault::Api {
            status,
            errors: vec![first],
        },
        (None, Fault::Status(..)) if status == StatusCode::UNAUTHORIZED => Fault::Api {
            status,
            errors: vec![ApiError::new("UNAUTHORIZED", "")],
        },
        (None, parsed) => parsed,
    }
}

fn from_body(status: StatusCode, body: &[u8]) -> Fault {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        // Token servers answer in this form.
        details: Option<String>,
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned();
    let body: Body = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(source) => {
            let text = format!(
                "error parsing HTTP {} response body: {source}: {shown:?}",
                status.as_u16()
            );
            return Fault::Status(status, text);
        }
    };
    if let Some(details) = body.details {
        let code = match status {
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::FORBIDDEN => "DENIED",
            StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
            _ => "UNKNOWN",
        };
        return Fault::Api {
            status,
            errors: vec![ApiError::new(code, &details)],
        };
    }
    if body.errors.is_empty() {
        let text = format!(
            "error parsing HTTP {} response body: no error details found in HTTP response body: {shown:?}",
            status.as_u16()
        );
        return Fault::Status(status, text);
    }
    let errors = body
        .errors
        .iter()
        .map(|one| ApiError::new(&one.code, &one.message))
        .collect();
    Fault::Api { status, errors }
}

/// The fault of a request that got no answer from `url`.
pub(crate) async fn from_transport(error: reqwest::Error, url: &Url) -> Fault {
    let mut refused = false;
    let mut chain = Vec::new();
    let mut cause = error.source();
    while let Some(one) = cause {
        refused |= one
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
        chain.push(one.to_string());
        cause = one.source();
    }
    let text = chain.join(": ");
    let host = url.host_str().unwrap_or_default();
    let text = if refused {
        format!(
            "dial tcp {}: connect: connection refused",
            address(url).await
        )
    } else if text.contains("dns error") {
        format!("dial tcp: lookup {host}: no such host")
    } else if text.contains("UnknownIssuer") {
        "tls: failed to verify certificate: x509: certificate signed by unknown authority".into()
    } else if text.contains("InvalidContentType") {
        "http: server gave HTTP response to HTTPS client".into()
    } else if error.is_timeout() {
        "context deadline exceeded".into()
    } else if text.is_empty() {
        error.without_url().to_string()
    } else {
        text
    };
    Fault::Unreachable(text)
}

/// The socket address behind `url`, as dialled.
async fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(443);
    let mut found = match tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await {
        Ok(found) => found.collect::<Vec<_>>(),
        Err(_) => Vec::new(),
    };
    found.sort_by_key(std::net::SocketAddr::is_ipv6);
    found
        .first()
        .map_or_else(|| format!("{host}:{port}"), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        "nope:1".parse().unwrap()
    }

    #[test]
    fn texts_of_docker() {
        let unknown = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#;
        let fault = from_answer(StatusCode::NOT_FOUND, &HeaderMap::new(), unknown);
        let error = fault.into_pull_error(&reference());
        assert_eq!(error.kind, Kind::NotFound);
        assert_eq!(
            error.message,
            "manifest for nope:1 not found: manifest unknown: manifest unknown"
        );

        let mut headers = HeaderMap::new();
        let hint = r#"Bearer realm="https://a/token",service="a",scope="repository:library/nope:pull",error="insufficient_scope""#;
        headers.insert("www-authenticate", hint.parse().unwrap());
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        let error =
            from_answer(StatusCode::UNAUTHORIZED, &headers, body).into_pull_error(&reference());
        assert_eq!(
            error.message,
            "pull access denied for nope, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        );
        let error = from_answer(StatusCode::UNAUTHORIZED, &headers, body).into_error();
        assert_eq!(
            error.message,
            "errors:\ndenied: requested access to the resource is denied\nunauthorized: authentication required\n"
        );

        let error = from_answer(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body).into_error();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::Unauthorized, "unauthorized: authentication required")
        );
        let error = from_answer(StatusCode::UNAUTHORIZED, &HeaderMap::new(), b"").into_error();
        assert_eq!(error.message, "unauthorized: authentication required");
        let error = from_answer(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"").into_error();
        assert_eq!(
            error.message,
            "received unexpected HTTP status: 502 Bad Gateway"
        );
    }
}
