//! From a request to the handler of its row in the table.

use std::time::Instant;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use engine::Scope;
use futures_util::future::BoxFuture;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use types::{Error, Result, native};

use super::{PREFIX, table::Route};
use crate::auth;
use crate::docker::{
    body, call,
    dispatch::{SERVER, carry_out},
    error,
    query::Query,
};

/// A call: what it is about, decoded, and the state `S` that handlers share.
pub(crate) struct Call<S> {
    pub(crate) state: S,
    scope: Scope,
    /// What the path's wildcards matched, in their order.
    names: Vec<String>,
    pub(crate) query: Query,
    pub(crate) parts: Parts,
    body: Body,
}

/// What answers a call.
pub(crate) type Handler<S> = fn(Call<S>) -> BoxFuture<'static, Result<Response>>;

impl<S> Call<S> {
    /// What the path's `at`th wildcard matched.
    pub(crate) fn name(&self, at: usize) -> &str {
        self.names.get(at).map_or("", String::as_str)
    }

    /// On whose behalf the call is made.
    pub(crate) fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// The body, which must be JSON of just this form.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let body = std::mem::take(&mut self.body);
        let value = body::json_value(&self.parts.headers, body)
            .await?
            .ok_or_else(body::empty)?;
        serde_json::from_value(value)
            .map_err(|error| Error::invalid(format!("invalid request: {error}")))
    }

    /// The body as a stream of bytes.
    pub(crate) fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.body)
    }

    /// A parameter that must be there.
    pub(crate) fn needed(&self, name: &str) -> Result<&str> {
        self.query
            .nonempty(name)
            .ok_or_else(|| Error::invalid(format!("the parameter {name} is missing")))
    }
}

/// Answers from `table`.
pub(crate) async fn answer<S>(table: &'static [Route<S>], state: S, request: Request) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let found = find(table, &method, &path).and_then(|(route, names)| {
        let scope = auth::check(&parts, route.access)?;
        Ok((route, names, scope))
    });
    let result = match found {
        Err(error) => Err(error),
        Ok((route, names, scope)) => {
            let query = Query::parse(parts.uri.query());
            let work = (route.handler)(Call {
                state,
                scope,
                names,
                query,
                parts,
                body,
            });
            carry_out(work).await.unwrap_or_else(|| {
                tracing::error!(%method, %path, "handler panicked");
                Err(Error::system(format!(
                    "{method} {path}: internal error; the log of the daemon tells more"
                )))
            })
        }
    };
    let mut response = result.unwrap_or_else(|error| {
        tracing::debug!(%method, %path, kind = ?error.kind, error = %error.message, "call failed");
        refusal(error)
    });
    response
        .headers_mut()
        .insert(header::SERVER, HeaderValue::from_static(SERVER));
    tracing::debug!(%method, %path, status = response.status().as_u16(), elapsed = ?began.elapsed(), "call");
    response
}

pub(crate) fn refusal(error: Error) -> Response {
    let status = error::status(error.kind);
    if status == StatusCode::NOT_MODIFIED {
        // Must not have a body.
        return error::response(&error);
    }
    call::json_with(status, &native::Error::from(error.clone()))
        .unwrap_or_else(|_| error::response(&error))
}

fn find<S>(
    table: &'static [Route<S>],
    method: &Method,
    path: &str,
) -> Result<(&'static Route<S>, Vec<String>)> {
    let rest = path.strip_prefix(PREFIX).unwrap_or(path);
    let segments = rest
        .split('/')
        .skip(1)
        .map(|segment| {
            percent_decode_str(segment)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::invalid("invalid URL escape: the path is not UTF-8"))?;
    table
        .iter()
        .filter(|route| route.method == *method)
        .find_map(|route| Some((route, matches(route.path, &segments)?)))
        .ok_or_else(|| {
            Error::not_found(format!(
                "{method} {path}: no such call; {PREFIX}/openapi.json describes all of them"
            ))
        })
}

/// What the wildcards of a pattern match, where it fits.
fn matches(pattern: &str, segments: &[String]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut left = segments.iter();
    for part in pattern.split('/').skip(1) {
        let segment = left.next()?;
        if part.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            names.push(segment.clone());
        } else if part != segment {
            return None;
        }
    }
    left.next().is_none().then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, path: &str) -> Option<Vec<String>> {
        let segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        matches(pattern, &segments)
    }

    #[test]
    fn patterns() {
        let two = "/volumes/{name}/snapshots/{snapshot}";
        assert_eq!(
            names(two, "/volumes/a/snapshots/b"),
            Some(vec!["a".into(), "b".into()])
        );
        for path in [
            "/volumes/a/snapshots",
            "/volumes/a/snapshots/",
            "/volumes//snapshots/b",
            "/volumes/a/snapshots/b/",
            "/volumes/a/snapshots/b/c",
            "/volume/a/snapshots/b",
        ] {
            assert_eq!(names(two, path), None, "{path}");
        }
        assert_eq!(names("/volumes", "/volumes"), Some(vec![]));
    }
}
