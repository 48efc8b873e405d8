//! Ports of containers and their bindings on the host.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// A transport protocol whose ports can be published.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A container's port in docker's form, `80/tcp`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// 0 to 65535.
    pub number: u16,
    /// The protocol, TCP where the text names none.
    pub protocol: Protocol,
}

impl FromStr for Port {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" | "" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => {
                return Err(Error::invalid(format!(
                    "invalid port specification: {text:?}: unknown protocol {other:?}"
                )));
            }
        };
        let number = number
            .parse()
            .map_err(|_| Error::invalid(format!("invalid port specification: {text:?}")))?;
        Ok(Self { number, protocol })
    }
}
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}
impl TryFrom<String> for Port {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Port> for String {
    fn from(port: Port) -> String {
        port.to_string()
    }
}
