//! What a network may be asked to be: subnets and driver options are checked here, in
//! docker's words, before anything is made.

use std::collections::BTreeMap;

use ipnet::IpNet;
use network::{LinkName, Macvlan, MacvlanMode};
use types::{Error, Result, container::EndpointSettings};

use crate::record::{NetworkRecord, SubnetRecord};

pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const GATEWAY_MODES: [&str; 2] = [
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
];
/// Choices of a create that may come as driver options, too.
pub(crate) const ENABLE_V4: &str = "com.docker.network.enable_ipv4";
pub(crate) const ENABLE_V6: &str = "com.docker.network.enable_ipv6";

/// How packets of one address family get in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum GatewayMode {
    #[default]
    Nat,
    /// Ports that are not published can be reached, too, by who has a route.
    Unprotected,
    /// The machine has no address on the bridge.
    Isolated,
}

/// The options of the driver bridge. Those that it does not know are kept and not looked at,
/// as docker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeOptions {
    pub(super) mtu: Option<u32>,
    pub(super) icc: bool,
    pub(super) masquerade: bool,
    /// Where ports are published for which nobody named an address; `None` is everywhere.
    pub(super) binding: Option<std::net::IpAddr>,
    /// What the interfaces inside are called, before their number.
    pub(super) prefix: String,
    /// IPv4, IPv6.
    pub(super) modes: [GatewayMode; 2],
}

impl BridgeOptions {
    pub(super) fn parse(options: &BTreeMap<String, String>, internal: bool) -> Result<Self> {
        let flag = |name: &str, default| match options.get(name) {
            Some(text) => boolean(text).ok_or_else(|| {
                bad(
                    name,
                    text,
                    &format!("strconv.ParseBool: parsing {text:?}: invalid syntax"),
                )
            }),
            None => Ok(default),
        };
        let mut modes = [GatewayMode::Nat; 2];
        for (mode, name) in modes.iter_mut().zip(GATEWAY_MODES) {
            *mode = gateway_mode(options, name)?;
        }
        if modes.contains(&GatewayMode::Isolated) && !internal {
            return Err(Error::system(
                "gateway mode 'isolated' can only be used for an internal network",
            ));
        }
        if flag(INHIBIT, false)? {
            return Err(Error::not_implemented(format!(
                "the option {INHIBIT} is not done by kraud; on an internal network, {}=isolated leaves the bridge without an address",
                GATEWAY_MODES[0]
            )));
        }
        let prefix = options.get(PREFIX).cloned().unwrap_or_default();
        if !prefix.is_empty() {
            // Room for a number of two digits.
            format!("{prefix}99")
                .parse::<LinkName>()
                .map_err(|_| bad(PREFIX, &prefix, "no name of an interface"))?;
        }
        Ok(Self {
            mtu: mtu(options)?,
            icc: flag(ICC, true)?,
            masquerade: flag(MASQUERADE, true)?,
            binding: binding(options)?,
            prefix,
            modes,
        })
    }
}

fn bad(name: &str, value: &str, why: &str) -> Error {
    Error::invalid(format!("failed to parse {name} value: {value} ({why})"))
}

/// Go's idea of a truth value.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u32>> {
    let Some(text) = options.get(MTU) else {
        return Ok(None);
    };
    let number: i64 = text.parse().map_err(|_| {
        bad(
            MTU,
            text,
            &format!("strconv.Atoi: parsing {text:?}: invalid syntax"),
        )
    })?;
    match number {
        0 => Ok(None),
        // What the kernel takes for a bridge and a pair.
        68..=65_535 => Ok(Some(number as u32)),
        _ => Err(Error::invalid(format!("invalid MTU number: {number}"))),
    }
}

fn binding(options: &BTreeMap<String, String>) -> Result<Option<std::net::IpAddr>> {
    let Some(text) = options.get(BINDING) else {
        return Ok(None);
    };
    let ip: std::net::IpAddr = text.parse().map_err(|_| bad(BINDING, text, "nil ip"))?;
    // All addresses of both families, as if nothing had been said.
    Ok(Some(ip).filter(|ip| !(ip.is_ipv4() && ip.is_unspecified())))
}

fn gateway_mode(options: &BTreeMap<String, String>, name: &str) -> Result<GatewayMode> {
    match options.get(name).map(String::as_str) {
        None | Some("nat") => Ok(GatewayMode::Nat),
        Some("nat-unprotected") => Ok(GatewayMode::Unprotected),
        Some("isolated") => Ok(GatewayMode::Isolated),
        Some("routed") => Err(Error::not_implemented(
            "gateway mode routed is not done by kraud: use nat, nat-unprotected or isolated",
        )),
        Some(other) => Err(bad(name, other, &format!("unknown gateway mode {other}"))),
    }
}

/// The options of the driver macvlan: which interface carries the network, and how.
pub(super) fn macvlan(options: &BTreeMap<String, String>, dummy: &str) -> Result<Macvlan> {
    let option = |name: &str| {
        options
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    };
    let mode = match option("macvlan_mode") {
        None | Some("bridge") => MacvlanMode::Bridge,
        Some("private") => MacvlanMode::Private,
        Some("vepa") => MacvlanMode::Vepa,
        Some("passthru") => MacvlanMode::Passthru,
        Some(other) => {
            return Err(Error::system(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
            )));
        }
    };
    let parent = option("parent").unwrap_or(dummy);
    if parent == "lo" {
        return Err(Error::system(
            "loopback interface is not a valid macvlan parent link",
        ));
    }
    Ok(Macvlan {
        parent: parent.parse()?,
        mode,
    })
}

/// What docker says of the network `none`.
pub(super) const PRIVATE: &str = "container cannot be connected to multiple networks with one of the networks in private (none) mode";

/// Refuses the networks that no container can be connected to, only made in (400).
pub(super) fn must_have_addresses(network: &NetworkRecord) -> Result<()> {
    if network.has_addresses() {
        return Ok(());
    }
    Err(Error::invalid(if network.driver == "null" {
        PRIVATE
    } else {
        "cannot connect container to host network - container must be created in host network mode"
    }))
}

/// Checks what is asked of an endpoint against its network (400).
pub(super) fn check_endpoint(network: &NetworkRecord, wanted: &EndpointSettings) -> Result<()> {
    let mut wrong = Vec::new();
    if let Some(fixed) = &wanted.ipam_config {
        let asked = [("IPv4", &fixed.ipv4_address), ("IPv6", &fixed.ipv6_address)];
        if asked.iter().any(|(_, text)| !text.is_empty()) && network.builtin {
            wrong.push(
                "user specified IP address is supported on user defined networks only".into(),
            );
        }
        for (version, text) in asked.into_iter().filter(|(_, text)| !text.is_empty()) {
            match text.parse::<std::net::IpAddr>() {
                Ok(ip) if ip.is_ipv4() == (version == "IPv4") => {
                    let within = network.subnets.iter().any(|subnet| subnet.contains(ip));
                    if !network.builtin && !within {
                        wrong.push(format!(
                            "no configured subnet or ip-range contain the IP address {ip}"
                        ));
                    }
                }
                _ => wrong.push(format!("invalid {version} address: {text}")),
            }
        }
    }
    if network.builtin && wanted.aliases.as_ref().is_some_and(|list| !list.is_empty()) {
        wrong.push(
            "network-scoped alias is supported only for containers in user defined networks".into(),
        );
    }
    if wanted.mac_address.parse::<network::Mac>().is_err() && !wanted.mac_address.is_empty() {
        return Err(Error::invalid(format!(
            "invalid MAC address {}",
            wanted.mac_address
        )));
    }
    interface(wanted)?;
    sysctls(wanted)?;
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "invalid endpoint settings:\n{}",
            wrong.join("\n")
        )))
    }
}

const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

fn endpoint_option<'a>(wanted: &'a EndpointSettings, name: &str) -> Option<&'a str> {
    wanted.driver_opts.as_ref()?.get(name).map(String::as_str)
}

/// What the interface of an endpoint shall be called; empty leaves it to the node.
pub(super) fn interface(wanted: &EndpointSettings) -> Result<String> {
    let name = endpoint_option(wanted, IFNAME).unwrap_or_default();
    if !name.is_empty() {
        name.parse::<LinkName>()?;
    }
    Ok(name.to_owned())
}

/// The kernel settings of an endpoint's interface (`net.ipv4.conf.IFNAME.log_martians=1,…`).
pub(super) fn sysctls(wanted: &EndpointSettings) -> Result<Vec<(String, String)>> {
    let Some(text) = endpoint_option(wanted, SYSCTLS) else {
        return Ok(Vec::new());
    };
    let one = |setting: &str| {
        let parts: Vec<&str> = setting.splitn(5, '.').collect();
        let value = match parts[..] {
            // The command line writes all in small letters.
            [
                "net",
                family @ ("ipv4" | "ipv6" | "mpls"),
                kind,
                "IFNAME" | "ifname",
                rest,
            ] => rest.split_once('=').map(|(key, value)| {
                (
                    format!("net/{family}/{kind}/IFNAME/{key}"),
                    value.to_owned(),
                )
            }),
            _ => None,
        };
        value.ok_or_else(|| {
            Error::invalid(format!(
                "invalid endpoint settings:\nunrecognised network interface sysctl '{setting}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            ))
        })
    };
    text.split(',').map(one).collect()
}

/// Checks the subnets of a create and says all that is wrong with them (400). Those of a
/// family that the network does not speak are not looked at.
pub(super) fn check_subnets(subnets: &[SubnetRecord], v6: bool) -> Result<()> {
    let mut wrong = Vec::new();
    for config in subnets {
        let Ok(subnet) = config.subnet.parse::<IpNet>() else {
            wrong.push(format!(
                "invalid subnet {}: invalid CIDR block notation",
                config.subnet
            ));
            continue;
        };
        if !v6 && matches!(subnet, IpNet::V6(_)) {
            continue;
        }
        if subnet.trunc() != subnet {
            wrong.push(format!(
                "invalid subnet {subnet}: it should be {}",
                subnet.trunc()
            ));
        }
        check_range(&config.ip_range, &subnet, &mut wrong);
        if let Err(why) = check_address(&config.gateway, &subnet) {
            wrong.push(format!("invalid gateway {}: {why}", config.gateway));
        }
        for (name, address) in &config.aux {
            if let Err(why) = check_address(address, &subnet) {
                wrong.push(format!("invalid auxiliary address {name}: {why}"));
            }
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "invalid network config:\n{}",
            wrong.join("\n")
        )))
    }
}

fn family(net: &IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

fn check_range(text: &str, subnet: &IpNet, wrong: &mut Vec<String>) {
    if text.is_empty() {
        return;
    }
    let mut say = |what: String| wrong.push(format!("invalid ip-range {text}: {what}"));
    let Ok(range) = text.parse::<IpNet>() else {
        return say("invalid CIDR block notation".into());
    };
    if family(&range) != family(subnet) {
        return say(format!("parent subnet is an {} block", family(subnet)));
    }
    if range.prefix_len() < subnet.prefix_len() {
        say(format!(
            "CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range.trunc() != range {
        say(format!("it should be {}", range.trunc()));
    }
    if !network::ipam::overlap(subnet, &range) {
        say(format!("parent subnet {subnet} doesn't contain ip-range"));
    }
}

fn check_address(text: &str, subnet: &IpNet) -> std::result::Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let ip: std::net::IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    if ip.is_ipv4() != subnet.addr().is_ipv4() {
        return Err(format!("parent subnet is an {} block", family(subnet)));
    }
    if subnet.contains(&ip) {
        Ok(())
    } else {
        Err(format!(
            "parent subnet {subnet} doesn't contain this address"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(subnet: &str, range: &str, gateway: &str) -> SubnetRecord {
        SubnetRecord {
            subnet: subnet.into(),
            ip_range: range.into(),
            gateway: gateway.into(),
            aux: BTreeMap::new(),
        }
    }

    #[test]
    fn says_all_that_is_wrong_with_subnets() {
        let good = [
            subnet("10.0.0.0/24", "10.0.0.128/25", "10.0.0.9"),
            subnet("fd00::/64", "", "fd00::9"),
        ];
        assert!(check_subnets(&good, true).is_ok());
        let said = |config: SubnetRecord| check_subnets(&[config], true).unwrap_err().message;
        assert_eq!(
            said(subnet("10.0.0.1/24", "fd00::/80", "10.0.1.1")),
            "invalid network config:\ninvalid subnet 10.0.0.1/24: it should be 10.0.0.0/24\n\
             invalid ip-range fd00::/80: parent subnet is an IPv4 block\n\
             invalid gateway 10.0.1.1: parent subnet 10.0.0.1/24 doesn't contain this address"
        );
        assert!(said(subnet("10.0.0.0", "", "")).contains("invalid CIDR block notation"));
        assert!(said(subnet("10.0.0.0/24", "10.0.0.0/16", "")).contains("bigger than its parent"));
        assert!(
            said(subnet("10.0.0.0/24", "10.0.1.0/25", "")).contains("doesn't contain ip-range")
        );
        assert!(check_subnets(&[subnet("fd00::1/64", "", "")], false).is_ok());
    }

    #[test]
    fn options_of_bridges() {
        let parse = |name: &str, value: &str| {
            BridgeOptions::parse(&BTreeMap::from([(name.into(), value.into())]), false)
        };
        assert_eq!(parse(MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(
            parse(MTU, "x").unwrap_err().message,
            "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": invalid syntax)"
        );
        assert_eq!(
            parse(MTU, "-1").unwrap_err().message,
            "invalid MTU number: -1"
        );
        assert!(!parse(ICC, "F").unwrap().icc);
        assert!(parse(ICC, "no").is_err());
        assert_eq!(parse(BINDING, "0.0.0.0").unwrap().binding, None);
        assert!(parse(BINDING, "here").is_err());
        assert!(parse(GATEWAY_MODES[0], "isolated").is_err(), "not internal");
        assert!(
            parse("com.example.whatever", "1").is_ok(),
            "as docker has it"
        );
    }
}
