//! A container's streams: attach, logs, top, the terminal's size.

use std::future::ready;

use agent::{LogEntry, LogQuery};
use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use engine::request::AttachRequest;
use futures_util::stream;
use types::{Error, Result, Time};

use crate::docker::{
    call, detach,
    frames::{self, Stream},
    router::Call,
    session::{self, Options},
    wire::container::TopResponse,
    ws,
};

fn attach_request(call: &Call) -> AttachRequest {
    AttachRequest {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        logs: call.query.flag("logs"),
        stream: call.query.flag("stream"),
    }
}

fn detach_keys(call: &Call) -> Result<Vec<u8>> {
    detach::parse(call.query.get("detachKeys"))
}

/// `POST /containers/{id}/attach`
pub(crate) async fn attach(call: Call) -> Result<Response> {
    let keys = detach_keys(&call)?;
    call.hijacker()?;
    let attached = call
        .state
        .container_attach(&call.scope(), &call.name, attach_request(&call))
        .await?;
    let content_type = frames::media_type(attached.tty, call.since(42));
    let options = Options {
        raw: attached.tty,
        detach_keys: Some(keys),
    };
    session::begin(&call, content_type, options, ready(Ok(attached)))
}

/// `GET /containers/{id}/attach/ws`
pub(crate) async fn attach_ws(call: Call) -> Result<Response> {
    let keys = detach_keys(&call)?;
    ws::check(&call)?;
    let attached = call
        .state
        .container_attach(&call.scope(), &call.name, attach_request(&call))
        .await?;
    ws::begin(&call, keys, attached)
}

/// `POST /containers/{id}/resize`
pub(crate) async fn resize(call: Call) -> Result<Response> {
    let (height, width) = call.query.size()?;
    call.state
        .container_resize(&call.scope(), &call.name, height, width)
        .await?;
    call::empty(axum::http::StatusCode::OK)
}

/// `GET /containers/{id}/top`
pub(crate) async fn top(call: Call) -> Result<Response> {
    let top = call
        .state
        .container_top(&call.scope(), &call.name, call.query.text("ps_args"))
        .await?;
    call::json(&TopResponse {
        processes: top.processes,
        titles: top.titles,
    })
}

/// How log messages are written.
#[derive(Debug, Clone, Copy)]
struct Style {
    raw: bool,
    timestamps: bool,
    details: bool,
}

/// `GET /containers/{id}/logs`
pub(crate) async fn logs(call: Call) -> Result<Response> {
    let query = LogQuery {
        follow: call.query.flag("follow"),
        // Anything that is no number, such as `all`, means everything; so do negative ones.
        tail: call.query.text("tail").parse().ok(),
        since: call.query.time("since")?,
        until: call
            .query
            .time("until")?
            .filter(|until| *until != Time::from_unix(0, 0)),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
    };
    if !query.stdout && !query.stderr {
        return Err(Error::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let log = call
        .state
        .container_logs(&call.scope(), &call.name, query)
        .await?;
    let style = Style {
        raw: log.tty,
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details"),
    };
    let body = stream::unfold(log.entries, move |mut entries| async move {
        let piece = match entries.recv().await? {
            Ok(batch) => Ok(render(&batch, style)),
            Err(error) => Err(error),
        };
        Some((piece, entries))
    });
    call::stream(
        frames::media_type(style.raw, call.since(42)),
        Body::from_stream(body),
    )
}

fn render(batch: &[LogEntry], style: Style) -> Bytes {
    let mut buffer = BytesMut::new();
    for entry in batch {
        let stream = if entry.stderr {
            Stream::Stderr
        } else {
            Stream::Stdout
        };
        let time = if style.timestamps {
            fixed_nanos(entry.time) + " "
        } else {
            String::new()
        };
        let details = if style.details {
            format!("{} ", entry.attributes)
        } else {
            String::new()
        };
        frames::put(
            &mut buffer,
            style.raw,
            stream,
            &[time.as_bytes(), details.as_bytes(), &entry.message],
        );
    }
    buffer.freeze()
}

/// RFC 3339 with all nine digits of the nanoseconds, so that columns line up.
fn fixed_nanos(time: Time) -> String {
    let text = time.to_string();
    let text = text.trim_end_matches('Z');
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{seconds}.{fraction:0<9}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines() {
        assert_eq!(
            fixed_nanos(Time::from_unix(1, 500_000_000)),
            "1970-01-01T00:00:01.500000000Z"
        );
        assert_eq!(
            fixed_nanos(Time::from_unix(1, 0)),
            "1970-01-01T00:00:01.000000000Z"
        );
        let entry = LogEntry {
            time: Time::from_unix(0, 0),
            stderr: true,
            message: "m\n".into(),
            attributes: "a=b".into(),
        };
        let text = render(
            &[entry],
            Style {
                raw: false,
                timestamps: true,
                details: true,
            },
        );
        assert_eq!(
            &text[..],
            b"\x02\0\0\0\0\0\0\x251970-01-01T00:00:00.000000000Z a=b m\n"
        );
    }
}
