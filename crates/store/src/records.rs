//! Typed records over the store: values are the versioned envelope of [`types::record`].
//!
//! It owns the translation and nothing else: keys are the callers'.

use types::record::{Record, decode, encode};

use crate::{Revision, Store, Txn};

/// The record of `key` with the revision that last wrote it, for [`crate::Guard::Unchanged`].
///
/// # Errors
/// When the store fails, and when the value is not an `R` that this version understands.
pub async fn get_record<R: Record>(
    store: &dyn Store,
    key: &str,
) -> types::Result<Option<(R, Revision)>> {
    let Some(entry) = store.get(key).await? else {
        return Ok(None);
    };
    let record = decode(&entry.value).map_err(|error| error.context(key))?;
    Ok(Some((record, entry.modified)))
}

/// The records under `prefix` with their keys and revisions, in the order of their keys.
///
/// # Errors
/// As [`get_record`]; one record that cannot be read fails the listing and is named.
pub async fn list_records<R: Record>(
    store: &dyn Store,
    prefix: &str,
) -> types::Result<Vec<(String, R, Revision)>> {
    let listing = store.list(prefix).await?;
    let decoded = listing.entries.into_iter().map(|entry| {
        let record = decode(&entry.value).map_err(|error| error.context(&entry.key))?;
        Ok((entry.key, record, entry.modified))
    });
    decoded.collect()
}

impl Txn {
    /// Adds a write of `record` to `key`.
    ///
    /// # Errors
    /// When the record has no JSON form.
    pub fn put_record<R: Record>(self, key: impl Into<String>, record: &R) -> types::Result<Self> {
        Ok(self.put(key, encode(record)?))
    }
}
