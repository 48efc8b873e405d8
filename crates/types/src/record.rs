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

/// For tests of a record's stored form: `files` are stored records of every version, oldest
/// first. Fails when one cannot be read any more, and when what is written now is not what
/// the newest file holds: then the version must be raised, with an upgrade and one more file.
pub fn check_golden<R: Record>(files: &[&[u8]]) -> Result<()> {
    let wrong = |what: String| Err(Error::system(format!("the stored {}: {what}", R::NOUN)));
    if files.len() as u64 != u64::from(R::VERSION) {
        return wrong(format!(
            "it is at version {}, but there are {} golden files",
            R::VERSION,
            files.len()
        ));
    }
    let mut now = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let start = format!("{{\"v\":{},", index + 1);
        if !file.starts_with(start.as_bytes()) {
            return wrong(format!("file {} is of another version", index + 1));
        }
        now = encode(&decode::<R>(file)?)?;
    }
    if files.last().is_some_and(|last| last.trim_ascii() != now) {
        return wrong(format!(
            "its form has changed without a new version; it is now {}",
            String::from_utf8_lossy(&now)
        ));
    }
    Ok(())
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

    #[test]
    fn golden_files_hold_a_form_fast() {
        let (one, two): (&[u8], &[u8]) = (
            br#"{"v":1,"d":{"kib":4}}"#,
            b"{\"v\":2,\"d\":{\"size_bytes\":7}}\n",
        );
        check_golden::<Sample>(&[one, two]).unwrap();
        let extra: &[u8] = br#"{"v":2,"d":{"size_bytes":7,"gone":1}}"#;
        for bad in [
            &[one][..],
            &[two, two],
            &[one, extra],
            &[one, b"{\"v\":2,\"d\":{}}"],
        ] {
            assert!(check_golden::<Sample>(bad).is_err(), "{bad:?}");
        }
    }
}
