//! Where a kraud is.

use std::{fmt, path::PathBuf, str::FromStr};

use types::Error;

/// The address of a kraud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A socket on this machine.
    Unix(PathBuf),
}

impl Default for Host {
    fn default() -> Self {
        Self::Unix("/run/kraud/kraud.sock".into())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Host {
    type Err = Error;
    /// `unix:///absolute/path`.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(Error::invalid(format!(
                    "invalid host {text:?}: the path of a socket is absolute, as in unix:///run/kraud/kraud.sock"
                )));
            }
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with("https://") {
            return Err(Error::not_implemented(format!(
                "{text}: this kraud does not serve its API over the network yet; let ssh carry its socket: ssh -nNT -L /tmp/kraud.sock:/run/kraud/kraud.sock root@server, then unix:///tmp/kraud.sock"
            )));
        }
        if text.starts_with("http://") || text.starts_with("tcp://") {
            return Err(Error::invalid(format!(
                "{text}: kraud is never spoken to without TLS or a socket"
            )));
        }
        Err(Error::invalid(format!(
            "invalid host {text:?}: want unix:///path/to/kraud.sock"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let host: Host = "unix:///run/x.sock".parse().unwrap();
        assert_eq!(host, Host::Unix("/run/x.sock".into()));
        assert_eq!(host.to_string(), "unix:///run/x.sock");
        for (bad, why) in [
            ("", "want unix"),
            ("/run/x.sock", "want unix"),
            ("unix://x.sock", "absolute"),
            ("http://host", "without TLS"),
            ("tcp://host:2376", "without TLS"),
            ("https://host", "not serve its API over the network yet"),
        ] {
            let error = bad.parse::<Host>().unwrap_err();
            assert!(error.message.contains(why), "{bad}: {error}");
        }
    }
}
