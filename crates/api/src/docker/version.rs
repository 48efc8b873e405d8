//! API versions and which of them are spoken.

use std::{fmt, str::FromStr};

use types::{Error, Result};

/// A version of the Docker Engine API, such as 1.43.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    major: u32,
    minor: u32,
}

impl ApiVersion {
    /// The oldest that is spoken.
    pub const MIN: Self = Self::new(1, 24);
    /// The newest that is spoken, and what a path without a version means.
    pub const MAX: Self = Self::new(1, 50);

    /// Version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The version of a path's first segment without its `v`, where it is spoken.
    pub fn negotiate(text: &str) -> Result<Self> {
        let version: Self = text.parse()?;
        if version > Self::MAX {
            return Err(Error::invalid(format!(
                "client version {text} is too new. Maximum supported API version is {}",
                Self::MAX
            )));
        }
        if version < Self::MIN {
            return Err(Error::invalid(format!(
                "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                Self::MIN
            )));
        }
        Ok(version)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!(
                "invalid API version {text:?}: want two numbers, such as {}",
                Self::MAX
            ))
        };
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        // docker's clients may send a patch level; it never mattered.
        let minor = minor.split('.').next().unwrap_or(minor);
        Ok(Self {
            major: major.parse().map_err(|_| bad())?,
            minor: minor.parse().map_err(|_| bad())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        assert_eq!(ApiVersion::negotiate("1.24").unwrap(), ApiVersion::MIN);
        assert_eq!(ApiVersion::negotiate("1.50").unwrap(), ApiVersion::MAX);
        assert_eq!(
            ApiVersion::negotiate("1.99").unwrap_err().message,
            "client version 1.99 is too new. Maximum supported API version is 1.50"
        );
        assert_eq!(
            ApiVersion::negotiate("1.10").unwrap_err().message,
            "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert!(ApiVersion::negotiate("1.x").is_err());
        assert!(ApiVersion::new(1, 9) < ApiVersion::new(1, 24));
    }
}
