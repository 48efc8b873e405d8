//! Interfaces, addresses and routes over rtnetlink (rtnetlink(7), `linux/if_link.h`).
//!
//! Each function acts on the network namespace of the calling thread, unless it names
//! another, and blocks. Which links ought to exist is decided elsewhere.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnet::IpNet;

use crate::{
    model::{Endpoint, Mac, MacvlanMode},
    netlink::{ACK, CREATE, DUMP, EXCLUSIVE, Message, REPLACE, ROUTE, Socket, is_missing},
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u8 = 254;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    pub(crate) master: Option<u32>,
    /// `bridge`, `veth`, …; empty for hardware.
    pub(crate) kind: String,
}

/// One pair of interfaces to make, of which one end lives in a sandbox.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) group: u32,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) sandbox: BorrowedFd<'a>,
    pub(crate) sandbox_name: &'a str,
    pub(crate) mac: Mac,
}

fn family(address: &IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// `struct ifinfomsg`; `up` sets the interface's state.
fn ifinfo(family: u8, index: u32, up: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = if up { IFF_UP } else { 0 };
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// A connection to rtnetlink of the namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Links(Socket);

impl Links {
    pub(crate) fn open() -> io::Result<Self> {
        Socket::open(ROUTE).map(Self)
    }

    /// Every interface.
    pub(crate) fn list(&self) -> io::Result<Vec<Link>> {
        let answers = self
            .0
            .dump(Message::new(RTM_GETLINK, DUMP, &ifinfo(0, 0, false)))?;
        Ok(answers
            .iter()
            .filter_map(|answer| read_link(&answer.body))
            .collect())
    }

    /// The interface called `name`, if there is one.
    pub(crate) fn find(&self, name: &str) -> io::Result<Option<Link>> {
        // A single answer carries no end mark, so the request also asks for an acknowledgement.
        match self
            .0
            .dump(Message::new(RTM_GETLINK, ACK, &ifinfo(0, 0, false)).string(IFLA_IFNAME, name))
        {
            Ok(answers) => Ok(answers.first().and_then(|answer| read_link(&answer.body))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, up, without spanning tree (the kernel's default). Its own hardware
    /// address is fixed: the kernel would otherwise change it with every port.
    pub(crate) fn add_bridge(
        &self,
        name: &str,
        group: u32,
        mac: Mac,
        mtu: Option<u32>,
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0, true))
            .string(IFLA_IFNAME, name)
            .u32(IFLA_GROUP, group)
            .attr(IFLA_ADDRESS, &mac.0);
        if let Some(mtu) = mtu {
            message = message.u32(IFLA_MTU, mtu);
        }
        self.0
            .request(&[message.nest(IFLA_LINKINFO, |info| info.string(IFLA_INFO_KIND, "bridge"))])
    }

    /// Makes a pair in one request: the outer end is up and a port of its bridge, the inner
    /// end is in the sandbox under its final name, down (the kernel cannot have it up yet).
    pub(crate) fn add_veth(&self, veth: &Veth<'_>) -> io::Result<()> {
        let outer = Message::new(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0, true))
            .string(IFLA_IFNAME, veth.host_name)
            .u32(IFLA_GROUP, veth.group)
            .u32(IFLA_MTU, veth.mtu)
            .u32(IFLA_MASTER, veth.bridge);
        let fd = veth.sandbox.as_raw_fd() as u32;
        let message = outer.nest(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "veth")
                .nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        peer.raw(&ifinfo(0, 0, false))
                            .string(IFLA_IFNAME, veth.sandbox_name)
                            .u32(IFLA_MTU, veth.mtu)
                            .attr(IFLA_ADDRESS, &veth.mac.0)
                            .u32(IFLA_NET_NS_FD, fd)
                    })
                })
        });
        self.0.request(&[message])
    }

    /// Makes an interface without a wire, up: of kind `dummy`, or `ifb`, for kernels that
    /// have only that.
    pub(crate) fn add_wireless(&self, name: &str, group: u32) -> io::Result<()> {
        let not_supported = |error: &io::Error| error.raw_os_error() == Some(95);
        match self.add_plain("dummy", name, group) {
            Err(error) if not_supported(&error) => self.add_plain("ifb", name, group),
            other => other,
        }
    }

    fn add_plain(&self, kind: &str, name: &str, group: u32) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0, true))
            .string(IFLA_IFNAME, name)
            .u32(IFLA_GROUP, group);
        self.0
            .request(&[message.nest(IFLA_LINKINFO, |info| info.string(IFLA_INFO_KIND, kind))])
    }

    /// Makes VLAN `id` of the interface `below`, up.
    pub(crate) fn add_vlan(&self, name: &str, below: u32, id: u16, group: u32) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0, true))
            .string(IFLA_IFNAME, name)
            .u32(IFLA_GROUP, group)
            .u32(IFLA_LINK, below);
        self.0.request(&[message.nest(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "vlan")
                .nest(IFLA_INFO_DATA, |data| {
                    data.attr(IFLA_VLAN_ID, &id.to_ne_bytes())
                })
        })])
    }

    /// Makes a macvlan interface on `below`, in the sandbox under its final name, down.
    pub(crate) fn add_macvlan(
        &self,
        below: u32,
        sandbox: BorrowedFd<'_>,
        endpoint: &Endpoint,
        mode: MacvlanMode,
    ) -> io::Result<()> {
        let number: u32 = match mode {
            MacvlanMode::Private => 1,
            MacvlanMode::Vepa => 2,
            MacvlanMode::Bridge => 4,
            MacvlanMode::Passthru => 8,
        };
        let mut message = Message::new(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0, false))
            .string(IFLA_IFNAME, endpoint.ifname.as_str())
            .u32(IFLA_LINK, below)
            .u32(IFLA_NET_NS_FD, sandbox.as_raw_fd() as u32);
        if mode != MacvlanMode::Passthru {
            message = message.attr(IFLA_ADDRESS, &endpoint.mac.0);
        }
        self.0.request(&[message.nest(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "macvlan")
                .nest(IFLA_INFO_DATA, |data| data.u32(IFLA_MACVLAN_MODE, number))
        })])
    }

    /// Sets how a bridge treats one of its ports: whether it may send a frame back to where
    /// it came from, and whether it keeps it from other isolated ports.
    pub(crate) fn set_port(&self, index: u32, hairpin: bool, isolated: bool) -> io::Result<()> {
        let message = Message::new(RTM_SETLINK, ACK, &ifinfo(AF_BRIDGE, index, false));
        self.0.request(&[message.nest(IFLA_PROTINFO, |info| {
            info.attr(IFLA_BRPORT_MODE, &[u8::from(hairpin)])
                .attr(IFLA_BRPORT_ISOLATED, &[u8::from(isolated)])
        })])
    }

    /// The index of an interface that has to be there.
    pub(crate) fn index(&self, name: &str) -> io::Result<u32> {
        self.find(name)?
            .map(|link| link.index)
            .ok_or_else(|| io::Error::from_raw_os_error(19))
    }

    /// Makes an interface a port of a bridge.
    pub(crate) fn set_master(&self, index: u32, bridge: u32) -> io::Result<()> {
        self.0.request(&[
            Message::new(RTM_SETLINK, ACK, &ifinfo(0, index, false)).u32(IFLA_MASTER, bridge)
        ])
    }

    /// Sets an interface up.
    pub(crate) fn set_up(&self, index: u32) -> io::Result<()> {
        self.0
            .request(&[Message::new(RTM_NEWLINK, ACK, &ifinfo(0, index, true))])
    }

    /// Sets an interface's largest packet, in bytes.
    pub(crate) fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.0
            .request(&[Message::new(RTM_SETLINK, ACK, &ifinfo(0, index, false)).u32(IFLA_MTU, mtu)])
    }

    /// Removes an interface, and with one end of a pair the other. False when it was not there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match self.0.request(&[
            Message::new(RTM_DELLINK, ACK, &ifinfo(0, 0, false)).string(IFLA_IFNAME, name)
        ]) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives an interface addresses; those it has already are left as they are.
    pub(crate) fn add_addresses(&self, index: u32, addresses: &[IpNet]) -> io::Result<()> {
        let messages: Vec<_> = addresses
            .iter()
            .map(|address| address_message(RTM_NEWADDR, index, address))
            .collect();
        self.0.request(&messages)
    }

    /// Takes an address from an interface.
    pub(crate) fn remove_address(&self, index: u32, address: &IpNet) -> io::Result<()> {
        self.0
            .request(&[address_message(RTM_DELADDR, index, address)])
    }

    /// Every address of the interface, or of all.
    pub(crate) fn addresses(&self, index: Option<u32>) -> io::Result<Vec<IpNet>> {
        let answers = self.0.dump(Message::new(RTM_GETADDR, DUMP, &[0; 8]))?;
        let of = |body: &[u8]| {
            body.get(4..8)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_ne_bytes)
        };
        let wanted = answers
            .iter()
            .filter(|answer| index.is_none() || of(&answer.body) == index);
        Ok(wanted
            .filter_map(|answer| {
                let attributes = answer.attributes(8);
                let address = attributes
                    .get(IFA_LOCAL)
                    .or_else(|| attributes.get(IFA_ADDRESS))?;
                IpNet::new(read_address(address)?, *answer.body.get(1)?).ok()
            })
            .collect())
    }

    /// Sets the default route of the gateway's family, replacing one that is there.
    pub(crate) fn set_default_route(&self, index: u32, gateway: &IpAddr) -> io::Result<()> {
        self.0.request(&[default_route(index, gateway)])
    }

    /// Sets an interface up, with addresses and default routes, in one request.
    pub(crate) fn equip(
        &self,
        index: u32,
        addresses: &[IpNet],
        gateways: &[IpAddr],
    ) -> io::Result<()> {
        let mut messages = vec![Message::new(RTM_NEWLINK, ACK, &ifinfo(0, index, true))];
        messages.extend(
            addresses
                .iter()
                .map(|address| address_message(RTM_NEWADDR, index, address)),
        );
        messages.extend(gateways.iter().map(|gateway| default_route(index, gateway)));
        self.0.request(&messages)
    }

    /// The destinations of every route of the main table but the default ones.
    pub(crate) fn route_destinations(&self) -> io::Result<Vec<IpNet>> {
        let answers = self.0.dump(Message::new(RTM_GETROUTE, DUMP, &[0; 12]))?;
        Ok(answers
            .iter()
            .filter(|answer| answer.body.get(4) == Some(&RT_TABLE_MAIN))
            .filter_map(|answer| {
                let destination = read_address(answer.attributes(12).get(RTA_DST)?)?;
                IpNet::new(destination, *answer.body.get(1)?).ok()
            })
            .collect())
    }
}

fn default_route(index: u32, gateway: &IpAddr) -> Message {
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
    let fixed = [
        family(gateway),
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        0,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let message = Message::new(RTM_NEWROUTE, ACK | CREATE | REPLACE, &fixed);
    message
        .attr(RTA_GATEWAY, &octets(gateway))
        .u32(RTA_OIF, index)
}

fn address_message(kind: u16, index: u32, address: &IpNet) -> Message {
    let mut fixed = [0; 8];
    fixed[0] = family(&address.addr());
    fixed[1] = address.prefix_len();
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(&address.addr());
    let flags = if kind == RTM_NEWADDR {
        ACK | CREATE | REPLACE
    } else {
        ACK
    };
    let message = Message::new(kind, flags, &fixed)
        .attr(IFA_LOCAL, &bytes)
        .attr(IFA_ADDRESS, &bytes);
    match address {
        IpNet::V4(v4) if kind == RTM_NEWADDR && v4.prefix_len() < 31 => {
            message.attr(IFA_BROADCAST, &v4.broadcast().octets())
        }
        // Addresses are handed out by us; waiting a second to detect twins would only delay.
        IpNet::V6(_) if kind == RTM_NEWADDR => message.u32(IFA_FLAGS, IFA_F_NODAD),
        _ => message,
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn read_link(body: &[u8]) -> Option<Link> {
    let attributes = crate::netlink::Attributes(body.get(16..)?);
    Some(Link {
        index: u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?),
        name: attributes.string(IFLA_IFNAME)?,
        group: attributes.u32(IFLA_GROUP).unwrap_or(0),
        mtu: attributes.u32(IFLA_MTU).unwrap_or(1500),
        master: attributes.u32(IFLA_MASTER),
        kind: attributes
            .within(IFLA_LINKINFO)
            .string(IFLA_INFO_KIND)
            .unwrap_or_default(),
    })
}
