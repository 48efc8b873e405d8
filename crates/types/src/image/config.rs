//! The image configuration: OCI image specification v1.1 `config.md`, with docker's additions.

use std::collections::BTreeMap;

use crate::{Config, Digest, Error, Result, Time, error::ResultExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A configuration as kraud understands it. Unknown members live on only in the raw text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_config: Option<Config>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    pub rootfs: RootFs,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".into(),
            diff_ids: Vec::new(),
        }
    }
}

/// One step that made an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// An operating system and an architecture, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// That of the machine this runs on. Somebody who decides for a node asks the node.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }

    /// Parses `os[/arch[/variant]]` or `arch`, the rest being that of `host`; docker's error
    /// otherwise.
    pub fn parse(text: &str, host: &Self) -> Result<Self> {
        let fits = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || !parts.iter().all(|part| fits(part)) {
            return Err(Error::invalid(format!(
                "{text:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\""
            )));
        }
        let arch = |name: &str| match name.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "i386" | "i686" => "386".to_owned(),
            "armhf" => "arm".to_owned(),
            other => other.to_owned(),
        };
        match parts.as_slice() {
            [os] if matches!(
                os.to_ascii_lowercase().as_str(),
                "linux" | "windows" | "darwin" | "freebsd"
            ) =>
            {
                Ok(Self {
                    os: os.to_ascii_lowercase(),
                    ..host.clone()
                })
            }
            [architecture] => Ok(Self {
                os: host.os.clone(),
                architecture: arch(architecture),
                variant: String::new(),
            }),
            [os, architecture] => Ok(Self {
                os: os.to_ascii_lowercase(),
                architecture: arch(architecture),
                variant: String::new(),
            }),
            [os, architecture, variant] => Ok(Self {
                os: os.to_ascii_lowercase(),
                architecture: arch(architecture),
                variant: variant.to_ascii_lowercase(),
            }),
            _ => Err(Error::invalid(format!("invalid platform {text:?}"))),
        }
    }

    /// Whether an image for `self` is what somebody who asked for `wanted` gets.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        let variant = |p: &Platform| match (p.architecture.as_str(), p.variant.as_str()) {
            ("arm64", "") => "v8".to_owned(),
            ("amd64", "v1") => String::new(),
            (_, variant) => variant.to_owned(),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_empty() || variant(self) == variant(wanted))
    }
}

/// `value` without object members that are `null`: Go reads those as "not given".
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k, without_nulls(v)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

impl ImageConfig {
    /// Understands the text of a configuration.
    ///
    /// Fails when it is not a JSON object of the right shape or names no layers' list.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|source| Error::invalid(format!("invalid image configuration: {source}")))?;
        if !value.is_object() {
            return Err(Error::invalid(
                "invalid image configuration: not a JSON object",
            ));
        }
        if value.get("rootfs").is_none_or(Value::is_null) {
            return Err(Error::invalid("invalid image JSON, no RootFS key"));
        }
        serde_json::from_value(without_nulls(value))
            .map_err(|source| Error::invalid(format!("invalid image configuration: {source}")))
    }

    /// Its JSON text, as a new image's configuration.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).during(|| "encoding an image configuration")
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        }
    }
}
