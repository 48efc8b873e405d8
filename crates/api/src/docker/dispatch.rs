//! From a request to the handler of its row in the table, and the headers of every answer.
//!
//! axum's own router cannot do it: names hold slashes and stand in the middle of paths
//! (`/images/{name}/json`), and a path may start with a version.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::{HeaderValue, Method, header},
    response::Response,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use percent_encoding::percent_decode_str;
use types::{Access, Error, Result};

use super::{call::Call, error, query::Query, version::ApiVersion};
use crate::auth;

/// How far a call is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// All of it.
    Full,
    /// All but what the text names.
    Partial(&'static str),
    /// Nothing; the text says why or what to do instead. The handler explains it to clients.
    NotYet(&'static str),
}

/// What answers a call.
pub(super) type Handler<S> = fn(Call<S>) -> BoxFuture<'static, Result<Response>>;

/// One row of the table.
pub struct Route<S: 'static> {
    pub method: Method,
    /// The path, with at most one wildcard in braces, which matches slashes too.
    pub path: &'static str,
    pub support: Support,
    /// What a caller needs for it.
    pub access: Access,
    pub handler: Handler<S>,
}

/// What calls of a method need, where a row does not say otherwise.
pub(crate) fn usual_access(method: &Method) -> Access {
    if is_change(method) {
        Access::Write
    } else {
        Access::Read
    }
}

impl<S> Route<S> {
    /// The row, with another need.
    pub(super) fn needs(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
    /// What the wildcard matches of `path`, where the route fits.
    fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self.path.split_once('{') {
            None => (self.path == path).then_some(""),
            Some((before, rest)) => {
                let after = rest.split_once('}').map_or("", |(_, after)| after);
                path.strip_prefix(before)?.strip_suffix(after)
            }
        }
    }
}

/// A service that answers from `table`, the first fitting row first.
pub(super) fn router<S: Clone + Send + Sync + 'static>(
    table: &'static [Route<S>],
    state: S,
) -> axum::Router {
    axum::Router::new().fallback(move |request: Request| {
        let state = state.clone();
        async move { answer(table, state, request).await }
    })
}

async fn answer<S>(table: &'static [Route<S>], state: S, request: Request) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path: Arc<str> = request.uri().path().into();
    let found = match whole(request).await {
        Ok(request) => find(table, state, request),
        Err(error) => Err(error),
    };
    let result = match found {
        Ok((handler, call)) => {
            let work = handler(call);
            carry_out(work).await.unwrap_or_else(|| {
                tracing::error!(%method, %path, "handler panicked");
                Err(Error::system(format!(
                    "{method} {path}: internal error; the log of the daemon tells more"
                )))
            })
        }
        Err(error) => Err(error),
    };
    let mut response = result.unwrap_or_else(|error| {
        tracing::debug!(%method, %path, kind = ?error.kind, error = %error.message, "call failed");
        error::response(&error)
    });
    add_headers(&mut response);
    tracing::debug!(%method, %path, status = response.status().as_u16(), elapsed = ?began.elapsed(), "call");
    response
}

/// The largest body that is there before a handler begins, bytes.
const SMALL: u64 = 64 << 10;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request with its body, where that is small. A connection whose body nobody reads has to be
/// closed after the answer, and a client that is still writing it then sees a broken pipe
/// instead of the answer.
async fn whole(request: Request) -> Result<Request> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if !length.is_some_and(|length| (1..=SMALL).contains(&length)) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(PATIENCE, super::body::read(body))
        .await
        .map_err(|_| Error::invalid("reading the request body: the client does not send it"))??;
    Ok(Request::from_parts(parts, body.into()))
}

/// Whether a call may change something.
pub(crate) fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// Runs a handler; `None` when it panicked, which must not take the connection's other
/// requests down.
pub(crate) async fn carry_out(
    work: BoxFuture<'static, Result<Response>>,
) -> Option<Result<Response>> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}

fn find<S>(
    table: &'static [Route<S>],
    state: S,
    request: Request,
) -> Result<(Handler<S>, Call<S>)> {
    let (parts, body) = request.into_parts();
    let path = percent_decode_str(parts.uri.path())
        .decode_utf8()
        .map_err(|_| Error::invalid("invalid URL escape: the path is not UTF-8"))?
        .into_owned();
    let (version, rest) = split_version(&path);
    let not_found = || Error::not_found("page not found");
    let (route, name) = table
        .iter()
        .filter(|route| route.method == parts.method)
        .find_map(|route| route.matches(rest).map(|name| (route, name.to_owned())))
        .ok_or_else(not_found)?;
    let scope = auth::check(&parts, route.access)?;
    let version = version.map_or(Ok(ApiVersion::MAX), ApiVersion::negotiate)?;
    let query = Query::parse(parts.uri.query());
    Ok((
        route.handler,
        Call {
            state,
            scope,
            version,
            name,
            query,
            parts,
            body,
        },
    ))
}

/// `/v1.41/info` is version `1.41` and `/info`.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let versioned = path.strip_prefix("/v").and_then(|rest| {
        let end = rest.find('/')?;
        let (version, rest) = rest.split_at(end);
        let fits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        fits.then_some((version, rest))
    });
    versioned.map_or((None, path), |(version, rest)| (Some(version), rest))
}

/// The value of the header `Server`.
pub(crate) const SERVER: &str = concat!("kraud/", env!("CARGO_PKG_VERSION"), " (linux)");

/// Headers that docker's clients expect of every answer.
pub(super) const HEADERS: [(&str, &str); 4] = [
    ("api-version", "1.50"),
    ("docker-experimental", "false"),
    ("ostype", "linux"),
    ("server", SERVER),
];

fn add_headers(response: &mut Response) {
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use axum::{body::Body, http::StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::docker::call;

    fn echo(call: Call<()>) -> BoxFuture<'static, Result<Response>> {
        Box::pin(
            async move { call::json(&serde_json::json!([call.name, call.version.to_string()])) },
        )
    }
    fn panics(_: Call<()>) -> BoxFuture<'static, Result<Response>> {
        Box::pin(async { panic!("as wanted") })
    }
    fn row(method: Method, path: &'static str, handler: Handler<()>) -> Route<()> {
        Route {
            method,
            path,
            support: Support::Full,
            access: usual_access(&Method::GET),
            handler,
        }
    }
    static TABLE: LazyLock<[Route<()>; 5]> = LazyLock::new(|| {
        [
            row(Method::GET, "/images/json", echo),
            row(Method::GET, "/images/{name}/json", echo),
            row(Method::DELETE, "/images/{name}", echo),
            row(Method::GET, "/volumes/{name}", echo),
            row(Method::GET, "/panic", panics),
        ]
    });

    async fn get(method: Method, uri: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .extension(engine::Scope::default())
            .body(Body::empty())
            .unwrap();
        let response = router(&*TABLE, ()).oneshot(request).await.unwrap();
        assert_eq!(response.headers()["api-version"], "1.50");
        assert_eq!(response.headers()["server"], SERVER);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn names_with_slashes() {
        for (method, uri, body) in [
            (Method::GET, "/images/json", r#"["","1.50"]"#),
            (Method::GET, "/v1.41/images/json", r#"["","1.41"]"#),
            (
                Method::GET,
                "/v1.24/images/reg:5000/a/b:c/json",
                r#"["reg:5000/a/b:c","1.24"]"#,
            ),
            (Method::GET, "/images/a%2Fb/json", r#"["a/b","1.50"]"#),
            (
                Method::DELETE,
                "/images/a/b@sha256:1",
                r#"["a/b@sha256:1","1.50"]"#,
            ),
            (Method::GET, "/volumes/v1.2", r#"["v1.2","1.50"]"#),
        ] {
            assert_eq!(
                get(method, uri).await,
                (StatusCode::OK, format!("{body}\n")),
                "{uri}"
            );
        }
    }

    #[tokio::test]
    async fn refusals() {
        let missing = (
            StatusCode::NOT_FOUND,
            "{\"message\":\"page not found\"}\n".to_owned(),
        );
        for uri in [
            "/",
            "/nothing",
            "/v1.99/nothing",
            "/vx/images/json",
            "/v1.41",
        ] {
            assert_eq!(get(Method::GET, uri).await, missing, "{uri}");
        }
        assert_eq!(get(Method::POST, "/images/json").await, missing);
        let (status, text) = get(Method::GET, "/v1.99/images/json").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains("too new"));
        assert_eq!(
            get(Method::GET, "/images/%ff/json").await.0,
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            get(Method::GET, "/panic").await.0,
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
}
