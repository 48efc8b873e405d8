//! HTTP status codes: the one place that chooses them.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use types::{Error, Kind};

/// The body of every failed call.
#[derive(Debug, Serialize)]
pub(super) struct ErrorResponse<'a> {
    pub message: &'a str,
}

/// The status code that docker gives for a kind of failure.
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::InvalidParameter => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The response for a failed call.
pub(crate) fn response(error: &Error) -> Response {
    let status = status(error.kind);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    // 304 must not have a body.
    if status != StatusCode::NOT_MODIFIED {
        let mut body = serde_json::to_vec(&ErrorResponse {
            message: &error.message,
        })
        .unwrap_or_default();
        body.push(b'\n');
        *response.body_mut() = Body::from(body);
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    response
}
