//! How places in volumes are written: `VOLUME[@SNAPSHOT][:PATH]`.

use std::str::FromStr;

use types::{Error, SnapshotName, VolumeName, volume::options::Origin};

/// A path of a volume or of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) volume: VolumeName,
    pub(crate) snapshot: Option<SnapshotName>,
    pub(crate) path: String,
}

impl Place {
    /// The snapshot's name, where there is one.
    pub(crate) fn snapshot(&self) -> Option<&str> {
        self.snapshot.as_ref().map(SnapshotName::as_str)
    }
}

impl FromStr for Place {
    type Err = Error;
    /// Without a path it is the root.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (origin, path) = text.split_once(':').unwrap_or((text, "/"));
        let Origin { volume, snapshot } = origin.parse()?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            volume,
            snapshot,
            path: path.to_owned(),
        })
    }
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    /// On this machine.
    Here(String),
    /// In a volume.
    There(Place),
    /// A tar on standard input or output.
    Stream,
}

impl FromStr for Side {
    type Err = Error;
    /// As docker does it: what begins with `/` or `.`, or holds no colon, is of this machine.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        if text.is_empty() {
            return Err(Error::invalid("a path cannot be empty"));
        }
        if text.starts_with(['/', '.']) || !text.contains(':') {
            return Ok(Self::Here(text.to_owned()));
        }
        Ok(Self::There(text.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place: Place = "data@monday:/a/b:c".parse().unwrap();
        assert_eq!(place.volume.as_str(), "data");
        assert_eq!(place.snapshot(), Some("monday"));
        assert_eq!(place.path, "/a/b:c");
        for text in ["data", "data:", "data:/"] {
            let place: Place = text.parse().unwrap();
            assert_eq!((place.path.as_str(), place.snapshot), ("/", None), "{text}");
        }
        for bad in ["", ":/x", "@s:/x", "data@:/x", "da ta:/x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sides() {
        let here = |text: &str| Side::Here(text.to_owned());
        for text in ["./a:b", "/a:b", "file", "dir/x", "../data:x"] {
            assert_eq!(text.parse::<Side>().unwrap(), here(text));
        }
        assert_eq!("-".parse::<Side>().unwrap(), Side::Stream);
        assert!(matches!("data:x".parse::<Side>().unwrap(), Side::There(_)));
        assert!("da ta:x".parse::<Side>().is_err() && "".parse::<Side>().is_err());
    }
}
