//! A registry in memory with one image, `a:1`, that misbehaves as it is told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use types::Digest;

use super::support::Served;

/// What goes wrong, and what was asked.
#[derive(Default)]
pub(super) struct State {
    /// Answers these first, one for each request below `/v2/a/`.
    pub(super) failures: Vec<StatusCode>,
    /// Refuses so many uploads after taking their bytes.
    pub(super) bad_patches: usize,
    /// Cuts so many transfers of the layer after a third of what was left.
    pub(super) cuts: usize,
    /// Stands still where it would cut.
    pub(super) stalls: bool,
    /// Ignores ranges.
    pub(super) no_ranges: bool,
    /// Sends this in place of the layer.
    pub(super) forged: Option<Bytes>,
    /// Sends this in place of the manifest.
    pub(super) manifest: Option<Bytes>,
    /// Wants a token for `/v2/`.
    pub(super) tokens: bool,
    /// A token is good for so many requests, 0 for all.
    pub(super) uses: usize,
    /// Has no image for anybody.
    pub(super) denied: bool,
    /// `METHOD path?query` of every request.
    pub(super) log: Vec<String>,
    /// `Authorization` and body of every token request.
    pub(super) token_requests: Vec<(String, String)>,
    /// The ranges that were asked for.
    pub(super) ranges: Vec<String>,
    /// Uploads under way.
    pub(super) uploads: HashMap<String, Vec<u8>>,
    /// What was uploaded.
    pub(super) blobs: HashMap<Digest, Bytes>,
    /// Tokens issued so far.
    pub(super) issued: usize,
    /// Uses of the newest token.
    pub(super) used: usize,
}

#[derive(Clone)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    served: Arc<Served>,
    pub(super) host: String,
    _server: Arc<Server>,
}

/// The server ends with the last handle.
struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fake {
    pub(super) async fn start(served: Served, state: State) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (state, served) = (Arc::new(Mutex::new(state)), Arc::new(served));
        let task = {
            let (state, served, host) = (state.clone(), served.clone(), host.clone());
            let router = Router::new().fallback(move |request: Request| {
                let (state, served, host) = (state.clone(), served.clone(), host.clone());
                async move { answer(&state, &served, &host, request).await }
            });
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
        };
        Self {
            state,
            served,
            host,
            _server: Arc::new(Server(task)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
    pub(super) fn layer(&self) -> &Bytes {
        &self.served.layer
    }
    pub(super) fn layer_digest(&self) -> &Digest {
        &self.served.layer_digest
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (
        status,
        serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string(),
    )
        .into_response()
}

async fn answer(state: &Mutex<State>, served: &Served, host: &str, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24)
        .await
        .unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let mut state = state.lock().unwrap();
    state.log.push(format!("{} {}", parts.method, parts.uri));
    if path == "/token" {
        return token(&mut state, &parts.headers, &body);
    }
    if let Some(refusal) = refuse(&mut state, host, &parts.headers) {
        return refusal;
    }
    let Some(rest) = path.strip_prefix("/v2/a/") else {
        return StatusCode::OK.into_response();
    };
    if !state.failures.is_empty() {
        return state.failures.remove(0).into_response();
    }
    match rest.split_once('/') {
        Some(("manifests", _)) if parts.method == Method::PUT => {
            StatusCode::CREATED.into_response()
        }
        Some(("manifests", _)) => {
            let bytes = state
                .manifest
                .clone()
                .unwrap_or_else(|| served.manifest.clone());
            let kind = "application/vnd.docker.distribution.manifest.v2+json";
            (
                [
                    ("content-type", kind.to_owned()),
                    ("docker-content-digest", Digest::of(&bytes).to_string()),
                ],
                bytes,
            )
                .into_response()
        }
        Some(("blobs", at)) if at.starts_with("uploads/") => upload(&mut state, &parts, at, body),
        Some(("blobs", digest)) => blob(&mut state, served, digest, &parts.headers),
        _ => error(StatusCode::NOT_FOUND, "UNSUPPORTED", ""),
    }
}

/// Issues `token-N`.
fn token(state: &mut State, headers: &HeaderMap, body: &Bytes) -> Response {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap().to_owned());
    state.token_requests.push((
        authorization.unwrap_or_default(),
        String::from_utf8_lossy(body).into_owned(),
    ));
    state.issued += 1;
    state.used = 0;
    serde_json::json!({ "token": format!("token-{}", state.issued), "expires_in": 300 })
        .to_string()
        .into_response()
}

/// The 401 for a request without a good token.
fn refuse(state: &mut State, host: &str, headers: &HeaderMap) -> Option<Response> {
    if !state.tokens {
        return None;
    }
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let good = state.issued > 0 && given == Some(format!("Bearer token-{}", state.issued).as_str());
    let spent = state.uses > 0 && state.used >= state.uses;
    if good && !spent && !state.denied {
        state.used += 1;
        return None;
    }
    let hint = if state.denied && good {
        ",error=\"insufficient_scope\""
    } else {
        ""
    };
    let challenge = format!(
        "Bearer realm=\"http://{host}/token\",service=\"fake\",scope=\"repository:a:pull\"{hint}"
    );
    let mut answer = error(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "authentication required",
    );
    answer
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
    Some(answer)
}

fn blob(state: &mut State, served: &Served, digest: &str, headers: &HeaderMap) -> Response {
    if let Some(bytes) = digest
        .parse()
        .ok()
        .and_then(|digest: Digest| state.blobs.get(&digest))
    {
        return bytes.clone().into_response();
    }
    if digest != served.layer_digest.as_str() {
        let config = Digest::of(&served.config);
        return if digest == config.as_str() {
            served.config.clone().into_response()
        } else {
            error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "")
        };
    }
    let whole = state.forged.clone().unwrap_or_else(|| served.layer.clone());
    let range = headers
        .get(header::RANGE)
        .map(|value| value.to_str().unwrap().to_owned());
    state.ranges.extend(range.clone());
    let start: usize = match range.filter(|_| !state.no_ranges) {
        Some(range) => range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap(),
        None => 0,
    };
    let rest = whole.slice(start..);
    let answer = Response::builder().header(header::CONTENT_LENGTH, rest.len());
    let answer = if start > 0 {
        let range = format!("bytes {start}-{}/{}", whole.len() - 1, whole.len());
        answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, range)
    } else {
        answer
    };
    if state.cuts == 0 {
        return answer.body(Body::from(rest)).unwrap();
    }
    state.cuts -= 1;
    let part = rest.slice(..rest.len() / 3);
    // The part has to be on its way before the cut, else nothing of it arrives.
    let pause = std::time::Duration::from_millis(if state.stalls { 3_600_000 } else { 20 });
    let pieces = futures_util::stream::unfold(Some(part), move |part| async move {
        match part {
            Some(part) if !part.is_empty() => Some((Ok(part), Some(Bytes::new()))),
            Some(_) => {
                tokio::time::sleep(pause).await;
                Some((Err(std::io::Error::other("cut")), None))
            }
            None => None,
        }
    });
    answer.body(Body::from_stream(pieces)).unwrap()
}

fn upload(
    state: &mut State,
    parts: &axum::http::request::Parts,
    at: &str,
    body: Bytes,
) -> Response {
    let id = at.trim_start_matches("uploads/").to_owned();
    let accepted = |id: &str| {
        (
            StatusCode::ACCEPTED,
            [("location", format!("/v2/a/blobs/uploads/{id}?state=1"))],
        )
            .into_response()
    };
    if parts.method == Method::POST {
        let id = format!("u{}", state.uploads.len());
        state.uploads.insert(id.clone(), Vec::new());
        return accepted(&id);
    }
    if parts.method == Method::PATCH && state.bad_patches > 0 {
        state.bad_patches -= 1;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let Some(collected) = state.uploads.get_mut(&id) else {
        return error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "");
    };
    collected.extend_from_slice(&body);
    if parts.method == Method::PATCH {
        return accepted(&id);
    }
    let bytes = Bytes::from(collected.clone());
    let digest = Digest::of(&bytes);
    let stated = parts
        .uri
        .query()
        .unwrap_or_default()
        .contains(&digest.as_str().replace(':', "%3A"));
    if !stated {
        return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "");
    }
    state.blobs.insert(digest, bytes);
    StatusCode::CREATED.into_response()
}
