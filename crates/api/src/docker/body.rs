//! Request bodies that are JSON.

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use types::{Error, Result};

use super::gojson::Go;

/// The largest JSON body that is read, bytes.
const LIMIT: usize = 8 << 20;

/// Fails, in docker's words, when the body is not declared to be JSON. An empty body needs
/// no declaration.
fn check_content_type(headers: &HeaderMap, empty: bool) -> Result<()> {
    let declared = headers
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(declared) = declared else {
        return if empty {
            Ok(())
        } else {
            Err(Error::invalid(
                "malformed Content-Type header (): mime: no media type",
            ))
        };
    };
    let media_type = declared.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "unsupported Content-Type header ({declared}): must be 'application/json'"
    )))
}

/// Reads a whole body of a bounded size.
pub(super) async fn read(body: Body) -> Result<Bytes> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Error::invalid(format!(
                "invalid JSON: the request body is larger than {} MiB",
                LIMIT >> 20
            )))
        }
        Err(error) => Err(Error::invalid(format!("reading the request body: {error}"))),
    }
}

/// The body as a JSON value; `None` when it is empty.
pub(crate) async fn json_value(headers: &HeaderMap, body: Body) -> Result<Option<Value>> {
    check_content_type(headers, body.is_end_stream())?;
    let text = read(body).await?;
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(invalid(&error)),
        None => return Ok(None),
    };
    if values.next().is_some() {
        return Err(Error::invalid("unexpected content after JSON"));
    }
    Ok(Some(value))
}

/// Decodes a value by Go's rules.
pub(super) fn decode<T: DeserializeOwned>(value: Value) -> Result<T> {
    T::deserialize(Go(value)).map_err(|error| invalid(&error))
}

/// The error for an empty body where one is needed.
pub(crate) fn empty() -> Error {
    Error::invalid("invalid JSON: got EOF while reading request body")
}

fn invalid(error: &serde_json::Error) -> Error {
    if error.is_eof() {
        return Error::invalid("invalid JSON: unexpected EOF");
    }
    Error::invalid(format!("invalid JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: Option<&'static str>) -> HeaderMap {
        content_type
            .map(|text| (header::CONTENT_TYPE, text.parse().unwrap()))
            .into_iter()
            .collect()
    }
    async fn message(content_type: Option<&'static str>, body: &'static str) -> String {
        match json_value(&headers(content_type), Body::from(body)).await {
            Ok(value) => format!("{value:?}"),
            Err(error) => error.message,
        }
    }

    #[tokio::test]
    async fn refusals() {
        let json = Some("application/json");
        assert_eq!(
            message(Some("text/plain"), "{}").await,
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        assert_eq!(
            message(None, "{}").await,
            "malformed Content-Type header (): mime: no media type"
        );
        assert_eq!(message(None, "").await, "None");
        assert_eq!(
            message(Some("application/json; charset=utf-8"), "{}").await,
            "Some(Object {})"
        );
        assert_eq!(
            message(json, "{} {}").await,
            "unexpected content after JSON"
        );
        assert_eq!(message(json, "{").await, "invalid JSON: unexpected EOF");
        assert!(message(json, "{x}").await.starts_with("invalid JSON: "));
        assert_eq!(message(json, " ").await, "None");
    }

    #[tokio::test]
    async fn deep_nesting_is_an_error() {
        let text = "[".repeat(100_000);
        assert!(
            json_value(&headers(Some("application/json")), Body::from(text))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn size_is_bounded() {
        let text = format!("\"{}\"", "x".repeat(LIMIT));
        assert!(
            read(Body::from(text))
                .await
                .unwrap_err()
                .message
                .contains("larger")
        );
    }
}
