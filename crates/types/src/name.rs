//! Names that people give, each with docker's rules, and the names that kraud makes up.

use std::{fmt, str::FromStr};

use rand::seq::IndexedRandom as _;

use crate::error::{Error, Result};

/// docker's rule for object names: a letter or digit, then letters, digits, `_`, `.`, `-`.
fn is_object_name(text: &str, shortest: usize) -> bool {
    let mut bytes = text.bytes();
    text.len() >= shortest
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name!(
    /// A container's name, without the leading slash that docker's API shows.
    ContainerName
);
name!(
    /// A volume's name.
    VolumeName
);
name!(
    /// A snapshot's name, unique within its volume.
    SnapshotName
);
name!(
    /// A storage pool's name, unique on its node.
    PoolName
);
name!(
    /// A network's name.
    NetworkName
);
name!(
    /// The owner of objects; names are unique within one.
    Namespace
);

impl VolumeName {
    /// What messages call that which kraud keeps for a tenant, and which is no volume of theirs.
    pub fn kept_for(namespace: &Namespace) -> Self {
        Self(format!("tenant-{namespace}"))
    }
}

impl FromStr for ContainerName {
    type Err = Error;
    /// Accepts one leading slash, as docker does.
    fn from_str(text: &str) -> Result<Self> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        if !is_object_name(bare, 2) {
            return Err(Error::invalid(format!(
                "Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        Ok(Self(bare.to_owned()))
    }
}

impl FromStr for VolumeName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.len() == 1 {
            return Err(Error::invalid(
                "volume name is too short, names should be at least two alphanumeric characters",
            ));
        }
        // A component of a path on disk: 255 bytes is the limit of every file system.
        if !is_object_name(text, 2) || text.len() > 255 {
            return Err(Error::invalid(format!(
                "{text:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for SnapshotName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if !is_object_name(text, 1) || text.len() > 128 {
            return Err(Error::invalid(format!(
                "invalid snapshot name {text:?}: a letter or digit, then letters, digits, '_', '.' or '-', 128 at most"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for PoolName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let fits = is_object_name(text, 1)
            && text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_alphabetic());
        if !fits {
            return Err(Error::invalid(format!(
                "invalid pool name {text:?}: a letter, then letters, digits, '_', '.' or '-', 32 at most"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Default for PoolName {
    /// The pool that kraud makes at its first start.
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for NetworkName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.trim().is_empty() || text.contains(['/', '\0']) {
            return Err(Error::invalid(format!(
                "invalid name: {text:?} is not a network name"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Namespace {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let fits = !text.is_empty()
            && text.len() <= 63
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if !fits {
            return Err(Error::invalid(format!(
                "invalid namespace {text:?}: 1 to 63 of a-z, 0-9 and '-', not at the ends"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Default for Namespace {
    /// The namespace of the operator, who comes in over the unix socket.
    fn default() -> Self {
        Self("default".into())
    }
}

/// A made-up container name such as `calm_harbor`; callers try again when it is taken.
pub fn made_up() -> ContainerName {
    let mut random = rand::rng();
    let first = FIRST.choose(&mut random).unwrap_or(&"calm");
    let second = SECOND.choose(&mut random).unwrap_or(&"harbor");
    ContainerName(format!("{first}_{second}"))
}

const FIRST: &[&str] = &[
    "amber", "autumn", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever",
    "copper", "coral", "crisp", "curious", "daring", "deep", "eager", "early", "earnest", "fair",
    "fleet", "frank", "fresh", "gentle", "glad", "golden", "grand", "hardy", "honest", "humble",
    "ivory", "jolly", "keen", "kind", "late", "light", "lively", "loyal", "lucid", "lucky",
    "merry", "mild", "modest", "neat", "nimble", "noble", "olive", "open", "patient", "plain",
    "polite", "proud", "quick", "quiet", "rapid", "ready", "robust", "rosy", "sandy", "serene",
    "sharp", "shiny", "silent", "silver", "simple", "sincere", "smart", "snowy", "solid", "spry",
    "stable", "steady", "still", "stout", "sunny", "swift", "tender", "tidy", "true", "upbeat",
    "vivid", "warm", "wise", "witty",
];
const SECOND: &[&str] = &[
    "acorn", "alder", "anchor", "aspen", "badger", "bay", "beacon", "beaver", "birch", "bison",
    "breeze", "bridge", "brook", "canyon", "cedar", "cliff", "cloud", "comet", "cove", "crane",
    "creek", "delta", "dune", "eagle", "ember", "falcon", "fern", "finch", "fjord", "forest",
    "garden", "geyser", "glacier", "grove", "harbor", "hawk", "hazel", "heron", "hill", "island",
    "juniper", "kestrel", "lagoon", "lake", "lantern", "larch", "lark", "linden", "lynx", "maple",
    "marsh", "meadow", "mesa", "moon", "moss", "oak", "ocean", "orchard", "otter", "owl", "pebble",
    "pine", "plain", "pond", "prairie", "rain", "raven", "reef", "ridge", "river", "robin",
    "rowan", "sail", "shore", "spring", "spruce", "star", "stone", "stream", "summit", "swan",
    "thicket", "tide", "valley", "willow", "wren",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names() {
        assert_eq!("/web-1".parse::<ContainerName>().unwrap().as_str(), "web-1");
        for bad in ["", "/", "a", "-a", "a b", "a/b", "//ab", "ä1"] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad}");
        }
        for _ in 0..100 {
            assert!(made_up().as_str().parse::<ContainerName>().is_ok());
        }
    }

    #[test]
    fn volume_names() {
        for bad in ["", "a", "../x", "a/b", ".hidden", &"x".repeat(256)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
    }
}
