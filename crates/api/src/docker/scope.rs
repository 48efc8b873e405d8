//! On whose behalf a call is made.

use engine::Scope;

use super::router::Call;

impl Call {
    /// The caller's namespace. The unix socket belongs to the operator; a listener that
    /// authenticates its clients puts their scope into the request's extensions.
    pub fn scope(&self) -> Scope {
        self.parts
            .extensions
            .get::<Scope>()
            .cloned()
            .unwrap_or_default()
    }
}
