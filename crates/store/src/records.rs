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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Embedded, Error, Guard};

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Sample {
        size_bytes: u64,
    }

    impl Record for Sample {
        const NOUN: &'static str = "sample";
    }

    #[tokio::test]
    async fn records_come_back_with_what_guards_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("store.db")).unwrap();
        let (first, second) = (Sample { size_bytes: 1 }, Sample { size_bytes: 2 });
        let txn = Txn::new().put_record("s/1", &first).unwrap();
        store
            .commit(txn.put_record("s/2", &second).unwrap())
            .await
            .unwrap();

        assert_eq!(get_record::<Sample>(&store, "s/0").await.unwrap(), None);
        let (read, revision) = get_record::<Sample>(&store, "s/1").await.unwrap().unwrap();
        assert_eq!(read, first);
        let listed = list_records::<Sample>(&store, "s/").await.unwrap();
        let expected = vec![
            ("s/1".to_owned(), first, revision),
            ("s/2".to_owned(), second, revision),
        ];
        assert_eq!(listed, expected);

        let swap = || {
            let guard = Guard::Unchanged("s/1".to_owned(), revision);
            Txn::new()
                .when(guard)
                .put_record("s/1", &Sample { size_bytes: 3 })
                .unwrap()
        };
        store.commit(swap()).await.unwrap();
        assert!(matches!(
            store.commit(swap()).await,
            Err(Error::Conflict { .. })
        ));
    }

    #[tokio::test]
    async fn an_unreadable_record_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("store.db")).unwrap();
        store
            .commit(Txn::new().put("s/bad", r#"{"v":9,"d":{}}"#))
            .await
            .unwrap();
        let error = get_record::<Sample>(&store, "s/bad").await.unwrap_err();
        assert!(
            error.message.contains("s/bad") && error.message.contains("newer"),
            "{error}"
        );
        assert_eq!(
            list_records::<Sample>(&store, "s/")
                .await
                .unwrap_err()
                .message,
            error.message
        );
    }
}
