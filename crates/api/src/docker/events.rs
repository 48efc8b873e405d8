//! `/events`.

use axum::response::Response;
use futures_util::stream;
use types::{Error, Result};

use super::{lines, router::Call, wire::event::EventMessage};

/// `GET /events`
pub(super) async fn events(call: Call) -> Result<Response> {
    let since = call.query.time("since")?;
    let until = call.query.time("until")?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(Error::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            since.unix_seconds(),
            until.unix_seconds()
        )));
    }
    let events = call
        .state
        .events(&call.scope(), since, until, call.query.filters()?)?;
    lines::respond(stream::unfold(events, |mut events| async move {
        let event = events.next().await?;
        Some((EventMessage::from(&*event), events))
    }))
}
