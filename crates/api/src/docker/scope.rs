//! On whose behalf a call is made.

use axum::http::request::Parts;
use engine::Scope;

use super::router::Call;

/// The caller and its namespace. No handler runs without one (`auth::check`).
pub(crate) fn of(parts: &Parts) -> Scope {
    parts.extensions.get::<Scope>().cloned().unwrap_or_default()
}

impl Call {
    /// The caller's namespace.
    pub fn scope(&self) -> Scope {
        of(&self.parts)
    }
}
