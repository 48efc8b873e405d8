//! The versioned envelope of everything that is kept in the store.
//!
//! A stored value is JSON `{"v":N,"d":{…}}`. Version N of a type decodes through
//! [`Record::upgrade`], one version at a time, so that a newer kraud reads what an older
//! one wrote. A record from a *newer* kraud is refused rather than half understood.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::{Error, Result};

/// A type that is kept in the store.
pub trait Record: Serialize + DeserializeOwned {
    /// What the record is, for messages: `container`, `volume`, …
    const NOUN: &'static str;
    /// The current version of its stored form.
    const VERSION: u32 = 1;

    /// Turns the stored form of version `from` into that of `from + 1`.
    fn upgrade(from: u32, value: Value) -> Result<Value> {
        let _ = value;
        Err(Error::system(format!(
            "decoding a {} record: no way from version {from} to {}",
            Self::NOUN,
            from + 1
        )))
    }
}

/// The stored form of `record`.
pub fn encode<R: Record>(record: &R) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Envelope<'a, R> {
        v: u32,
        d: &'a R,
    }
    serde_json::to_vec(&Envelope {
        v: R::VERSION,
        d: record,
    })
    .map_err(|source| Error::wrap(format_args!("encoding a {} record", R::NOUN), source))
}

/// The record of a stored form, upgraded to the current version.
pub fn decode<R: Record>(stored: &[u8]) -> Result<R> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        v: u32,
        d: Value,
    }
    let failed = |source| Error::wrap(format_args!("decoding a {} record", R::NOUN), source);
    let Envelope {
        v: mut version,
        d: mut value,
    } = serde_json::from_slice(stored).map_err(failed)?;
    if version > R::VERSION {
        return Err(Error::system(format!(
            "decoding a {} record: it is of version {version}, written by a newer kraud; this one knows up to {}",
            R::NOUN,
            R::VERSION
        )));
    }
    while version < R::VERSION {
        value = R::upgrade(version, value)?;
        version += 1;
    }
    serde_json::from_value(value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Sample {
        size_bytes: u64,
    }
    impl Record for Sample {
        const NOUN: &'static str = "sample";
        const VERSION: u32 = 2;
        fn upgrade(from: u32, value: Value) -> Result<Value> {
            match from {
                1 => Ok(
                    serde_json::json!({ "size_bytes": value["kib"].as_u64().unwrap_or(0) * 1024 }),
                ),
                _ => Err(Error::system("?")),
            }
        }
    }

    #[test]
    fn decodes_forward_only() {
        assert_eq!(
            decode::<Sample>(br#"{"v":1,"d":{"kib":4}}"#).unwrap(),
            Sample { size_bytes: 4096 }
        );
        let now = Sample { size_bytes: 7 };
        assert_eq!(decode::<Sample>(&encode(&now).unwrap()).unwrap(), now);
        assert!(
            decode::<Sample>(br#"{"v":3,"d":{}}"#)
                .unwrap_err()
                .message
                .contains("newer")
        );
        assert!(decode::<Sample>(b"\xff").is_err());
    }
}
