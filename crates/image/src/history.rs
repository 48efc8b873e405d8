//! `docker history`: the steps that made an image, newest first.

use types::{Digest, Namespace, Result, Time};

use crate::store::ImageStore;

/// One row of `docker history`.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// `None` is shown as `<missing>`.
    pub id: Option<Digest>,
    pub created: Time,
    pub created_by: String,
    /// Familiar references, for rows that are images.
    pub tags: Vec<String>,
    /// Bytes of the step's layer.
    pub size: u64,
    pub comment: String,
}

impl ImageStore {
    /// The history of image `name`, newest first.
    pub async fn history(&self, _ns: &Namespace, name: &str) -> Result<Vec<HistoryRow>> {
        Err(types::Error::not_implemented(format!("history of {name}")))
    }
}
