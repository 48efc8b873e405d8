//! Work that blocks.

use crate::exit::{Failure, Outcome};

/// Does work on a thread that may block: meanwhile ctrl-C is heard, and what is sent goes on.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::failed(format!("a thread of kra's: {error}"))))
}
