//! What a caller wants the kernel to look like: bridges, endpoints, published ports.
//!
//! These are plain values. They carry no state of the kernel, and nothing here acts.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use types::{ContainerId, Error, NetworkId, Result, port::Protocol};

/// Where one kraud keeps its networks, and how it tells them from everybody else's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Unique per data directory.
    pub instance: Instance,
    /// Sandboxes are mounted in its folder `netns`; must not survive a reboot (a tmpfs).
    pub run_dir: PathBuf,
}

/// Eight hexadecimal digits, not all zero, that tell one kraud's links and rules on a
/// machine from another's. Links carry it as their group, the nftables table in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance(u32);

impl Instance {
    /// The number that links carry as their group.
    pub(crate) fn group(self) -> u32 {
        self.0
    }
}

impl FromStr for Instance {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match u32::from_str_radix(text, 16) {
            Ok(number) if number != 0 && text.len() == 8 && !text.starts_with('+') => {
                Ok(Self(number))
            }
            _ => Err(Error::invalid(format!(
                "invalid instance {text:?}: want 8 hexadecimal digits, not all zero"
            ))),
        }
    }
}
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The name of a network interface: 1 to 15 bytes of letters, digits and `_ . -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

impl LinkName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if (1..=15).contains(&text.len())
            && text.bytes().all(legal)
            && !matches!(text, "." | ".." | "all" | "default")
        {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(format!(
                "invalid interface name {text:?}: want 1 to 15 letters, digits, '_', '.' or '-'"
            )))
        }
    }
}
impl TryFrom<String> for LinkName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<LinkName> for String {
    fn from(name: LinkName) -> Self {
        name.0
    }
}
impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Docker's locally administered address of an endpoint: `02:42` and the four bytes of `v4`.
    pub fn of_v4(v4: Ipv4Addr) -> Self {
        let [a, b, c, d] = v4.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
    /// The same for an endpoint that has only an IPv6 address: `02:42` and its last four bytes.
    pub fn of_v6(v6: Ipv6Addr) -> Self {
        let bytes = v6.octets();
        Self([0x02, 0x42, bytes[12], bytes[13], bytes[14], bytes[15]])
    }
}

impl FromStr for Mac {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid MAC address: {text:?}"));
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && !part.starts_with('+'))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        // A group address cannot be an interface's own.
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            Err(bad())
        } else {
            Ok(Self(bytes))
        }
    }
}
impl TryFrom<String> for Mac {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One address range of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet, host bits zero.
    pub net: IpNet,
    /// The bridge's own address; without it the bridge has none in this subnet.
    pub gateway: Option<IpAddr>,
    /// Where addresses are taken from; the whole subnet when missing.
    pub range: Option<IpNet>,
}

/// A bridge network on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The network.
    pub id: NetworkId,
    /// The bridge interface.
    pub name: LinkName,
    /// Any number, of both address families.
    pub subnets: Vec<Subnet>,
    /// Bytes; the kernel's default (1500) when missing.
    pub mtu: Option<u32>,
    /// Whether endpoints reach each other.
    pub icc: bool,
    /// Whether outbound traffic carries the machine's address.
    pub masquerade: bool,
    /// Whether the network is cut off from everything but its own endpoints and the machine.
    pub internal: bool,
    /// Whether who has a route reaches ports that are not published.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unprotected: bool,
    /// Whether its endpoints are kept from the machine's own services.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guarded: bool,
    /// Where ports are published for which nobody names an address; `None` is everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<IpAddr>,
    /// What interfaces inside are called before their number; `eth` when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// No bridge at all: endpoints lie directly on an interface of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macvlan: Option<Macvlan>,
}

/// The interface that a macvlan network lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macvlan {
    /// An interface that is there, `name.number` for a VLAN to be made, or `dm-…` for one
    /// without a wire.
    pub parent: LinkName,
    /// Who reaches whom.
    pub mode: MacvlanMode,
}

/// `linux/if_link.h`, `enum macvlan_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MacvlanMode {
    /// Endpoints reach each other.
    Bridge,
    /// Endpoints do not reach each other.
    Private,
    /// Endpoints reach each other by the switch outside.
    Vepa,
    /// One endpoint has the whole interface.
    Passthru,
}

impl Bridge {
    /// A bridge with docker's defaults: masqueraded, open within, connected outwards.
    pub fn new(id: NetworkId, name: LinkName, subnets: Vec<Subnet>) -> Self {
        Self {
            id,
            name,
            subnets,
            mtu: None,
            icc: true,
            masquerade: true,
            internal: false,
            unprotected: false,
            guarded: false,
            binding: None,
            prefix: String::new(),
            macvlan: None,
        }
    }

    /// A name for one more interface inside: the prefix and the first number that is free.
    pub fn free_interface(&self, is_taken: impl Fn(&str) -> bool) -> String {
        let prefix = if self.prefix.is_empty() {
            "eth"
        } else {
            &self.prefix
        };
        let mut names = (0u32..).map(|number| format!("{prefix}{number}"));
        names.find(|name| !is_taken(name)).unwrap_or_default()
    }
}

/// One sandbox's place in one bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The bridge, which must be known ([`crate::Networks::ensure_bridge`]).
    pub bridge: LinkName,
    /// The interface within the sandbox, `eth0` and on.
    pub ifname: LinkName,
    /// Addresses with their subnet's prefix length.
    pub addresses: Vec<IpNet>,
    /// The hardware address.
    pub mac: Mac,
    /// The sandbox's default gateways, at most one per family; empty when another endpoint
    /// leads outwards or the network is internal.
    pub gateways: Vec<IpAddr>,
    /// Kernel settings of the interface: paths below `/proc/sys/net` with dots or slashes,
    /// `IFNAME` standing for the interface (docker's `com.docker.network.endpoint.sysctls`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<(String, String)>,
}

/// A port to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The protocol.
    pub protocol: Protocol,
    /// The port in the container.
    pub container_port: u16,
    /// The address on the machine; `None` is every one of both families.
    pub host_ip: Option<IpAddr>,
    /// First and last port to choose from; 0, 0 is any free one.
    pub host_ports: (u16, u16),
}

/// A port that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The protocol.
    pub protocol: Protocol,
    /// The port in the container.
    pub container_port: u16,
    /// The address on the machine, possibly unspecified (`0.0.0.0` or `::`).
    pub host_ip: IpAddr,
    /// The port on the machine.
    pub host_port: u16,
}

/// Where published ports lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The container.
    pub id: ContainerId,
    /// Its name, for messages.
    pub name: String,
    /// The id of the endpoint that has the addresses, for messages.
    pub endpoint_id: String,
    /// Its address for IPv4, and for IPv6 when `v6` is missing (by the userland path).
    pub v4: Option<Ipv4Addr>,
    /// Its address for IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// A sandbox that lives on, for [`crate::Networks::reconcile`].
#[derive(Debug, Clone)]
pub struct Live {
    /// The sandbox.
    pub id: ContainerId,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports and where they lead.
    pub published: Option<(Target, Vec<Published>)>,
}

/// What [`crate::Networks::reconcile`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Sandboxes removed because nobody named them.
    pub removed_sandboxes: Vec<String>,
    /// Links removed because nobody named them.
    pub removed_links: Vec<String>,
    /// Endpoints that were made again or led back to their bridge, as `sandbox interface`.
    pub mended_endpoints: Vec<String>,
    /// Living sandboxes that have no network namespace any more (after a reboot).
    pub missing_sandboxes: Vec<ContainerId>,
    /// Ports whose userland path could not be taken up again, with the reason.
    pub failed_ports: Vec<(ContainerId, Published, String)>,
}

/// Whether a call had to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was made.
    Created,
    /// It was there and differed.
    Updated,
    /// It was there as asked.
    Same,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for bad in ["", "a b", "a/b", "sixteen-letters-x", "..", "é", "all"] {
            assert!(bad.parse::<LinkName>().is_err(), "{bad:?}");
        }
        assert!("kraud0".parse::<LinkName>().is_ok());
        for bad in [
            "",
            "0000000",
            "00000000",
            "+1234567",
            "123456789",
            "xyzxyzxy",
        ] {
            assert!(bad.parse::<Instance>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "0a1b2c3d".parse::<Instance>().unwrap().to_string(),
            "0a1b2c3d"
        );
    }

    #[test]
    fn macs() {
        assert_eq!(
            Mac::of_v4(Ipv4Addr::new(172, 17, 0, 2)).to_string(),
            "02:42:ac:11:00:02"
        );
        assert_eq!(
            "02-42-AC-11-00-02".parse::<Mac>().unwrap().to_string(),
            "02:42:ac:11:00:02"
        );
        for bad in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "01:00:5e:00:00:01",
            "zz:42:ac:11:00:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }
}
