//! Where a kraud is.

use std::{fmt, path::PathBuf, str::FromStr};

use types::Error;

/// The address of a kraud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A socket on this machine.
    Unix(PathBuf),
    /// Over the network, by TLS.
    Https {
        /// A name or an address.
        name: String,
        port: u16,
    },
}

impl Host {
    /// Where kraud listens unless told otherwise.
    pub const PORT: u16 = 2376;

    /// `name[:port]`, an IPv6 address in brackets.
    fn parse_network(text: &str, rest: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid(format!(
                "invalid host {text:?}: want https://name:port, the port {} where none is named",
                Self::PORT
            ))
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (name, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (name, after) = v6.split_once(']').ok_or_else(wrong)?;
                name.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                let port = match after {
                    "" => None,
                    _ => Some(after.strip_prefix(':').ok_or_else(wrong)?),
                };
                (name, port)
            }
            None => match rest.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (rest, None),
            },
        };
        let fits = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
        if !fits {
            return Err(wrong());
        }
        let port = match port {
            None => Self::PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(wrong)?,
        };
        Ok(Self::Https {
            name: name.to_ascii_lowercase(),
            port,
        })
    }

    /// The name and port as they stand in URLs.
    pub fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "kraud".to_owned(),
            Self::Https { name, port } if name.contains(':') => format!("[{name}]:{port}"),
            Self::Https { name, port } => format!("{name}:{port}"),
        }
    }
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
            Self::Https { .. } => write!(f, "https://{}", self.authority()),
        }
    }
}

impl FromStr for Host {
    type Err = Error;
    /// `unix:///absolute/path`, `https://name[:port]`, or as docker writes it `tcp://name[:port]`.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(Error::invalid(format!(
                    "invalid host {text:?}: the path of a socket is absolute, as in unix:///run/kraud/kraud.sock"
                )));
            }
            return Ok(Self::Unix(path.into()));
        }
        for scheme in ["https://", "tcp://"] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return Self::parse_network(text, rest);
            }
        }
        if text.starts_with("http://") {
            return Err(Error::invalid(format!(
                "{text}: kraud is never spoken to without TLS or a socket: want https://"
            )));
        }
        if text.is_empty() || text.contains('/') {
            return Err(Error::invalid(format!(
                "invalid host {text:?}: want https://name:port, or unix:///path/to/kraud.sock"
            )));
        }
        Self::parse_network(text, text)
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
        for (text, shown) in [
            ("https://Host.example", "https://host.example:2376"),
            ("https://host:443/", "https://host:443"),
            ("tcp://10.0.0.1:2376", "https://10.0.0.1:2376"),
            ("host", "https://host:2376"),
            ("https://[::1]:99", "https://[::1]:99"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), shown, "{text}");
        }
        for (bad, why) in [
            ("", "or unix"),
            ("/run/x.sock", "or unix"),
            ("unix://x.sock", "absolute"),
            ("http://host", "without TLS"),
            ("https://", "want https"),
            ("https://a b", "want https"),
            ("https://host:0", "want https"),
            ("https://host:99999", "want https"),
            ("https://host/path", "want https"),
            ("https://[::1", "want https"),
        ] {
            let error = bad.parse::<Host>().unwrap_err();
            assert!(error.message.contains(why), "{bad}: {error}");
        }
    }
}
