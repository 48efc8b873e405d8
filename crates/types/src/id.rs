//! Identifiers. Each is checked once, in its constructor.

use std::{fmt, str::FromStr};

use rand::RngCore as _;

use crate::error::{Error, Result};

/// Implements a newtype over 64 lower-case hexadecimal digits.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new random id.
            pub fn random() -> Self {
                Self(random_hex())
            }
            /// All 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The first 12 digits, as docker's clients show it.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                if is_hex64(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Error::invalid(format!(concat!("invalid ", $noun, " id {:?}: want 64 lower-case hexadecimal digits"), text)))
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }
    };
}

hex_id!(
    /// A container, for its whole life.
    ContainerId, "container"
);
hex_id!(
    /// One exec session of a container.
    ExecId, "exec"
);
hex_id!(
    /// A network.
    NetworkId, "network"
);
hex_id!(
    /// A volume, for its whole life, whatever its name.
    VolumeId, "volume"
);
hex_id!(
    /// A snapshot of a volume, whatever its name.
    SnapshotId, "snapshot"
);

/// 64 random lower-case hexadecimal digits whose first 12 are not all decimal, so that the
/// short form is never mistaken for a number.
pub fn random_hex() -> String {
    loop {
        let mut bytes = [0u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let text = hex(&bytes);
        if text[..12].bytes().any(|digit| digit.is_ascii_alphabetic()) {
            return text;
        }
    }
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A SHA-256 content digest in OCI form, `sha256:` and 64 hexadecimal digits
/// (OCI image specification, descriptor.md).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_sha256(sha2::Sha256::digest(content).into())
    }
    /// The digest whose 32 bytes are already known.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex(&bytes)))
    }
    /// `sha256:` and 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The 64 digits alone.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
    /// The first 12 digits, as docker's clients show an image id.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("sha256:") {
            Some(digits) if is_hex64(digits) => Ok(Self(text.to_owned())),
            _ => Err(Error::invalid(format!(
                "invalid digest {text:?}: want sha256: and 64 lower-case hexadecimal digits"
            ))),
        }
    }
}
impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A machine that runs kraud. On a single machine there is one, [`NodeId::local`].
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// The only node of a single-machine installation.
    pub fn local() -> Self {
        Self("local".into())
    }
    /// The node's name in records.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        assert!("0123".parse::<ContainerId>().is_err());
        assert!("G".repeat(64).parse::<ContainerId>().is_err());
        let id = ContainerId::random();
        assert_eq!(id.as_str().parse::<ContainerId>().unwrap(), id);
        assert_eq!(id.short().len(), 12);
    }

    #[test]
    fn digest_of_nothing() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert!("sha256:E3".parse::<Digest>().is_err());
        assert!(serde_json::from_str::<Digest>("\"md5:00\"").is_err());
    }
}
