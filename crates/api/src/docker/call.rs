//! One call of the API as its handler sees it, and the ways to answer.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use engine::Scope;
use serde::{Serialize, de::DeserializeOwned};
use types::{Error, Result};

use super::{body, query::Query, version::ApiVersion};
use crate::http::Hijacker;

/// A call: what it is about, decoded, and the state `S` that handlers share.
pub struct Call<S> {
    pub state: S,
    pub(super) scope: Scope,
    pub version: ApiVersion,
    /// What the path's wildcard matched, empty where the path has none.
    pub name: String,
    pub query: Query,
    pub parts: Parts,
    pub body: Body,
}

impl<S> Call<S> {
    /// On whose behalf it is made.
    pub fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// Whether the call is of version 1.`minor` or newer.
    pub fn since(&self, minor: u32) -> bool {
        self.version >= ApiVersion::new(1, minor)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    }

    /// The body, which must be JSON and not empty.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.json_or_none().await?.ok_or_else(body::empty)
    }

    /// The body, which must be JSON when it is not empty.
    pub async fn json_or_none<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        self.json_value().await?.map(body::decode).transpose()
    }

    /// The body as it is, which must be JSON when it is not empty.
    pub async fn json_value(&mut self) -> Result<Option<serde_json::Value>> {
        body::json_value(&self.parts.headers, std::mem::take(&mut self.body)).await
    }

    /// The body as a stream of bytes.
    pub fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.body)
    }

    /// The right to take the connection over.
    pub fn hijacker(&self) -> Result<Hijacker> {
        self.parts
            .extensions
            .get::<Hijacker>()
            .cloned()
            .ok_or_else(|| {
                Error::system(format!(
                    "{}: this connection cannot be taken over",
                    self.parts.uri.path()
                ))
            })
    }
}

/// JSON with `status`, a line end behind it as docker writes it.
pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Result<Response> {
    let mut text =
        serde_json::to_vec(value).map_err(|error| Error::wrap("encoding the response", error))?;
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// 200 with JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Response> {
    json_with(StatusCode::OK, value)
}

/// A status without body.
pub(crate) fn empty(status: StatusCode) -> Result<Response> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}

/// 200 with a body of `content_type`.
pub(crate) fn stream(content_type: &'static str, body: Body) -> Result<Response> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// 200 with plain text.
pub(super) fn text(text: &'static str) -> Result<Response> {
    stream(
        "text/plain; charset=utf-8",
        Body::from(Bytes::from_static(text.as_bytes())),
    )
}
