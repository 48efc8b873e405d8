//! `/containers`, by what the calls are about.

pub(super) mod archive;
pub(super) mod commit;
pub(super) mod create;
pub(super) mod io;
pub(super) mod lifecycle;
pub(super) mod list;
pub(super) mod stats;

/// Decodes the body of a create, for fuzzing.
pub(super) fn decode_create(
    body: serde_json::Value,
) -> types::Result<engine::request::CreateRequest> {
    create::parse(body)
}
