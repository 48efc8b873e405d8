//! Platforms as registries name them, and which of them this machine can run.
//!
//! Owns parsing, normal forms and the order of preference; knows nothing of manifests.
//! Source: OCI image specification (image-index.md, "platform") and the platform rules that
//! docker's clients rely on: `linux/arm64` also runs 32-bit arm, `linux/amd64` also runs 386.

use std::{fmt, str::FromStr};

use types::{Error, Result};

/// One platform: `linux/arm/v7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    /// The CPU architecture in Go's words: `amd64`, `arm64`, `arm`, …
    #[serde(default)]
    pub architecture: String,
    /// The operating system: `linux`, `windows`, …
    #[serde(default)]
    pub os: String,
    /// Windows builds only.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features that the operating system must have.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the architecture: `v7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// `os/architecture[/variant]`, as given.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
            ..Self::default()
        }
    }

    /// The platform of the machine that this runs on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self::new("linux", canonical_architecture(architecture).0, variant)
    }

    /// The same with aliases resolved and default variants left out, for comparing.
    pub fn normalized(&self) -> Self {
        let (architecture, implied) = canonical_architecture(&self.architecture);
        let given = if self.variant.is_empty() {
            implied
        } else {
            &self.variant
        };
        let given = if given.starts_with(|c: char| c.is_ascii_digit()) {
            format!("v{given}")
        } else {
            given.to_owned()
        };
        let variant = match (architecture, given.as_str()) {
            ("arm64", "v8") | ("amd64", "v1") => String::new(),
            ("arm", "") => "v7".into(),
            _ => given,
        };
        let os = self.os.to_ascii_lowercase();
        Self {
            os: if os == "macos" { "darwin".into() } else { os },
            architecture: architecture.to_owned(),
            variant,
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }

    /// How well `offered` serves this platform: 0 is best, `None` not at all.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        let offered = offered.normalized();
        self.acceptable().iter().position(|one| {
            one.os == offered.os
                && one.architecture == offered.architecture
                && one.variant == offered.variant
        })
    }

    /// Every platform that this one can run, best first.
    fn acceptable(&self) -> Vec<Self> {
        let own = self.normalized();
        let mut list = vec![own.clone()];
        let number = |text: &str| {
            text.strip_prefix('v')
                .and_then(|digits| digits.parse::<u8>().ok())
        };
        let mut add = |architecture: &str, variant: String| {
            list.push(Self::new(&own.os, architecture, &variant))
        };
        match own.architecture.as_str() {
            "amd64" => {
                let level = number(&own.variant).unwrap_or(1).min(9);
                (2..level)
                    .rev()
                    .for_each(|level| add("amd64", format!("v{level}")));
                if level > 1 {
                    add("amd64", String::new());
                }
                add("386", String::new());
            }
            "arm64" => {
                if !own.variant.is_empty() {
                    add("arm64", String::new());
                }
                (5..=8)
                    .rev()
                    .for_each(|level| add("arm", format!("v{level}")));
            }
            "arm" => {
                let level = number(&own.variant).unwrap_or(7).min(9);
                (5..level)
                    .rev()
                    .for_each(|level| add("arm", format!("v{level}")));
            }
            _ => {}
        }
        list
    }
}

/// Resolves an architecture's alias; the second value is the variant that the alias implies.
fn canonical_architecture(text: &str) -> (&str, &'static str) {
    match text {
        "x86_64" | "x86-64" => ("amd64", ""),
        "i386" | "x86" => ("386", ""),
        "aarch64" => ("arm64", ""),
        "armhf" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        "loongarch64" => ("loong64", ""),
        other => (other, ""),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/arch[/variant]`, or an operating system or architecture alone.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let fits = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if !parts.iter().all(fits) || parts.len() > 3 {
            return Err(Error::invalid(format!(
                "{text:?}: platform specifier must be os/architecture[/variant]"
            )));
        }
        let lower: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
        let platform = match lower.as_slice() {
            [one]
                if matches!(
                    one.as_str(),
                    "linux" | "windows" | "darwin" | "macos" | "freebsd"
                ) =>
            {
                Self {
                    os: one.clone(),
                    ..Self::host()
                }
            }
            [architecture] => Self::new("linux", architecture, ""),
            [os, architecture] => Self::new(os, architecture, ""),
            [os, architecture, variant] => Self::new(os, architecture, variant),
            _ => return Err(Error::invalid(format!("{text:?}: invalid platform"))),
        };
        let known = [
            "386", "amd64", "arm", "arm64", "loong64", "mips64le", "mipsle", "mips64", "mips",
            "ppc64", "ppc64le", "riscv64", "s390x", "wasm",
        ];
        let normal = platform.normalized();
        if parts.len() == 1 && !known.contains(&normal.architecture.as_str()) {
            return Err(Error::invalid(format!(
                "{text:?}: unknown operating system or architecture: invalid argument"
            )));
        }
        Ok(normal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn normal_forms() {
        for (text, want) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("Linux/AMD64", "linux/amd64"),
        ] {
            assert_eq!(parse(text).to_string(), want);
        }
        for bad in ["", "a/b/c/d", "/", "linux/", "plan10", "linux/ä"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn preferences() {
        assert_eq!(parse("linux/amd64").rank(&parse("linux/amd64")), Some(0));
        assert_eq!(parse("linux/amd64").rank(&parse("linux/386")), Some(1));
        assert_eq!(parse("linux/amd64").rank(&parse("linux/arm64")), None);
        assert_eq!(parse("linux/amd64").rank(&parse("windows/amd64")), None);
        assert_eq!(
            parse("linux/amd64/v3").rank(&parse("linux/amd64/v2")),
            Some(1)
        );
        assert_eq!(parse("linux/amd64").rank(&parse("linux/amd64/v3")), None);
        assert!(
            parse("linux/arm64").rank(&parse("linux/arm/v7"))
                < parse("linux/arm64").rank(&parse("linux/arm/v6"))
        );
        assert_eq!(parse("linux/arm/v6").rank(&parse("linux/arm/v7")), None);
    }
}
