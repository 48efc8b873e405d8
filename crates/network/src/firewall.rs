//! The instance's own nftables table: its fixed rules, and the elements of its sets.
//!
//! The rules (`ruleset.nft`) are loaded by one call of `nft` when kraud starts. From then
//! on only set elements come and go, over netlink, without a process. Other tables are
//! never written.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::IpAddr,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use types::{Error, Result, error::ResultExt as _, port::Protocol};

use crate::{
    model::{Bridge, Instance, Published, Target},
    netlink::{ACK, CREATE, Message, NETFILTER, Socket},
};

const RULESET: &str = include_str!("ruleset.nft");

// linux/netfilter/nfnetlink.h and nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const FAMILY_INET: u8 = 1;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const DATA_VALUE: u16 = 1;
const INTERVAL_END: u32 = 1;
/// Elements per message: keeps the list below the 64 KiB of an attribute.
const CHUNK: usize = 400;

/// Every set of the table.
const SETS: [&str; 13] = [
    "bridges",
    "internal",
    "unprotected",
    "guarded",
    "within",
    "subnets4",
    "subnets6",
    "masquerade4",
    "masquerade6",
    "host4",
    "host6",
    "any4",
    "any6",
];

/// Which side of an interval an element is; elements of other sets are starts. At the same
/// key an end goes first: the kernel takes two starts in a row for an overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edge {
    End,
    Start,
}

/// Where an element is and which: the set, the key, the side of the interval.
type Place = (&'static str, Vec<u8>, Edge);
/// Elements with their data; only maps have some.
pub(crate) type Elements = BTreeMap<Place, Option<Vec<u8>>>;

/// The table and what ought to be in it.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    wanted: Mutex<Elements>,
    /// To be removed with the next change.
    obsolete: Mutex<Elements>,
}

impl Firewall {
    /// The table of `instance`; nothing is done yet.
    pub(crate) fn new(instance: Instance) -> Self {
        Self {
            table: format!("kraud_{instance}"),
            wanted: Mutex::default(),
            obsolete: Mutex::default(),
        }
    }

    /// Loads the rules. Elements that are there already stay, so that a restart of kraud
    /// interrupts no published port. Blocks.
    pub(crate) fn install(&self) -> Result<()> {
        let rules = RULESET.replace("TABLE", &self.table);
        let Err(first) = run_nft("nft", &rules) else {
            return Ok(());
        };
        // A table of an older kraud may have sets of another shape: start afresh.
        let afresh = format!(
            "table inet {0} {{}}\ndelete table inet {0}\n{rules}",
            self.table
        );
        if first.kind == types::Kind::Unavailable {
            return Err(first);
        }
        run_nft("nft", &afresh)
            .map_err(|error| error.context(format_args!("building nftables table {}", self.table)))
    }

    /// Adds and removes elements in one transaction. When the kernel's table is not as it
    /// should be (somebody flushed it), everything is built again. Blocks.
    pub(crate) fn change(&self, add: Elements, mut remove: Elements) -> Result<()> {
        let mut wanted = lock(&self.wanted);
        remove.append(&mut lock(&self.obsolete));
        // Never what somebody else has put there since.
        remove.retain(|place, data| wanted.get(place).is_none_or(|now| now == data));
        wanted.retain(|place, _| !remove.contains_key(place));
        wanted.extend(add.clone());
        let mut messages = element_messages(&self.table, DELETE_ELEMENT, 0, &remove);
        messages.extend(element_messages(&self.table, NEW_ELEMENT, CREATE, &add));
        if messages.is_empty() || transact(messages).is_ok() {
            return Ok(());
        }
        let result = self.rebuild(&wanted);
        if result.is_err() {
            wanted.retain(|place, _| !add.contains_key(place));
        }
        result
    }

    /// Makes the kernel's elements exactly `all`, in one transaction. Blocks.
    pub(crate) fn replace(&self, all: Elements) -> Result<()> {
        let mut wanted = lock(&self.wanted);
        *wanted = all;
        self.rebuild(&wanted)
    }

    /// Leaves elements to the next [`Firewall::change`], which the caller has to bring about.
    /// Until then they still act, unless something else takes their place.
    pub(crate) fn discard(&self, elements: Elements) {
        lock(&self.obsolete).extend(elements);
    }

    fn rebuild(&self, wanted: &Elements) -> Result<()> {
        let flush = |set: &&str| element_header(&self.table, DELETE_ELEMENT, 0, set);
        let mut messages: Vec<_> = SETS.iter().map(flush).collect();
        messages.extend(element_messages(&self.table, NEW_ELEMENT, CREATE, wanted));
        if transact(messages.clone()).is_ok() {
            return Ok(());
        }
        self.install()?;
        transact(messages).during(|| format!("filling nftables table {}", self.table))
    }

    /// Removes the table. Blocks.
    pub(crate) fn remove(&self) -> Result<()> {
        lock(&self.wanted).clear();
        run_nft(
            "nft",
            &format!("table inet {0} {{}}\ndelete table inet {0}\n", self.table),
        )
    }

    /// Names chains of others that drop forwarded packets by default, as dockerd's do:
    /// no rule of ours can save a packet from them. Blocks.
    pub(crate) fn foreign_forward_drops(&self) -> Vec<String> {
        let Ok(output) = Command::new("nft")
            .args(["list", "chains"])
            .stdin(Stdio::null())
            .output()
        else {
            return Vec::new();
        };
        let listing = String::from_utf8_lossy(&output.stdout);
        forward_drops(&listing)
            .into_iter()
            .filter(|chain| !chain.contains(&self.table))
            .collect()
    }
}

fn lock(elements: &Mutex<Elements>) -> MutexGuard<'_, Elements> {
    // The map is whole at every point where a panic could come.
    elements.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The elements that make `bridge` one of ours.
pub(crate) fn bridge_elements(bridge: &Bridge) -> Elements {
    let name = ifname(bridge.name.as_str());
    let mut elements = Elements::new();
    elements.insert(("bridges", name.clone(), Edge::Start), None);
    elements.insert(
        ("within", [name.clone(), name.clone()].concat(), Edge::Start),
        None,
    );
    if bridge.guarded {
        elements.insert(("guarded", name.clone(), Edge::Start), None);
    }
    if bridge.internal {
        elements.insert(("internal", name, Edge::Start), None);
    } else if bridge.unprotected {
        elements.insert(("unprotected", name, Edge::Start), None);
    }
    for subnet in &bridge.subnets {
        let [all, masqueraded] = match subnet.net {
            IpNet::V4(_) => ["subnets4", "masquerade4"],
            IpNet::V6(_) => ["subnets6", "masquerade6"],
        };
        interval(&mut elements, all, &subnet.net);
        if bridge.masquerade && !bridge.internal {
            interval(&mut elements, masqueraded, &subnet.net);
        }
    }
    elements
}

/// The elements that lead published ports to `target`: none for loopback addresses, and
/// none where the target has no address of the family. Those have the userland path.
pub(crate) fn port_elements(target: &Target, ports: &[Published]) -> Elements {
    let mut elements = Elements::new();
    for port in ports {
        let to: IpAddr = match (port.host_ip, target.v4, target.v6) {
            (ip, _, _) if ip.is_loopback() => continue,
            (IpAddr::V4(_), Some(v4), _) => v4.into(),
            (IpAddr::V6(_), _, Some(v6)) => v6.into(),
            _ => continue,
        };
        let mut key = Vec::new();
        let set = match (port.host_ip.is_unspecified(), port.host_ip) {
            (true, IpAddr::V4(_)) => "any4",
            (true, IpAddr::V6(_)) => "any6",
            (false, IpAddr::V4(v4)) => {
                field(&mut key, &v4.octets());
                "host4"
            }
            (false, IpAddr::V6(v6)) => {
                field(&mut key, &v6.octets());
                "host6"
            }
        };
        field(&mut key, &[protocol_number(port.protocol)]);
        field(&mut key, &port.host_port.to_be_bytes());
        let mut data = address(&to);
        field(&mut data, &port.container_port.to_be_bytes());
        elements.insert((set, key, Edge::Start), Some(data));
    }
    elements
}

/// The number of a protocol in IP headers.
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Appends one field of a concatenation; each begins at a multiple of four bytes.
fn field(key: &mut Vec<u8>, bytes: &[u8]) {
    key.extend_from_slice(bytes);
    key.resize(key.len().next_multiple_of(4), 0);
}

fn ifname(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn address(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An interval is two elements: its first address, and the first one after it.
fn interval(elements: &mut Elements, set: &'static str, net: &IpNet) {
    let next = match net.broadcast() {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    };
    elements.insert((set, address(&net.network()), Edge::Start), None);
    if let Some(next) = next {
        elements.insert((set, address(&next), Edge::End), None);
    }
}

/// `struct nfgenmsg`.
pub(crate) fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn element_header(table: &str, kind: u16, flags: u16, set: &str) -> Message {
    Message::new(kind, flags | ACK, &generic(FAMILY_INET, 0))
        .string(LIST_TABLE, table)
        .string(LIST_SET, set)
}

fn element_messages(table: &str, kind: u16, flags: u16, elements: &Elements) -> Vec<Message> {
    let all: Vec<_> = elements.iter().collect();
    let mut messages = Vec::new();
    for of_one_set in all.chunk_by(|((a, ..), _), ((b, ..), _)| a == b) {
        for chunk in of_one_set.chunks(CHUNK) {
            let ((set, ..), _) = chunk[0];
            let message = element_header(table, kind, flags, set);
            messages.push(message.nest(LIST_ELEMENTS, |list| {
                chunk.iter().fold(list, |list, (p, d)| element(list, p, d))
            }));
        }
    }
    messages
}

fn element(list: Message, (_, key, edge): &Place, data: &Option<Vec<u8>>) -> Message {
    list.nest(LIST_ELEMENT, |mut element| {
        if *edge == Edge::End {
            element = element.attr(ELEMENT_FLAGS, &INTERVAL_END.to_be_bytes());
        }
        element = element.nest(ELEMENT_KEY, |value| value.attr(DATA_VALUE, key));
        match data {
            Some(data) => element.nest(ELEMENT_DATA, |value| value.attr(DATA_VALUE, data)),
            None => element,
        }
    })
}

/// Applies all messages or none.
fn transact(messages: Vec<Message>) -> io::Result<()> {
    let mut batch = vec![Message::new(BATCH_BEGIN, 0, &generic(0, SUBSYSTEM))];
    batch.extend(messages);
    batch.push(Message::new(BATCH_END, 0, &generic(0, SUBSYSTEM)));
    Socket::open(NETFILTER)?.request(&batch)
}

fn run_nft(program: &str, script: &str) -> Result<()> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::new(
            types::Kind::Unavailable,
            "the program nft is missing: apt-get install nftables",
        ),
        _ => Error::wrap("starting nft", error),
    };
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let fed = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().during(|| "waiting for nft")?;
    if output.status.success() && fed.is_ok() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no message");
    let hint =
        "; the kernel needs nf_tables with NAT, and nft 1.0 or newer (apt-get install nftables)";
    Err(Error::system(format!(
        "nft refused kraud's rules: {first}{hint}"
    )))
}

/// The chains in a listing of `nft list chains` that drop forwarded packets by default,
/// as `family table chain`.
fn forward_drops(listing: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", "", Vec::new());
    for line in listing.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if line.contains("hook forward") && line.contains("policy drop") {
            found.push(format!("{table} {chain}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_keys() {
        let target = Target {
            id: types::ContainerId::random(),
            name: "a".into(),
            endpoint_id: String::new(),
            v4: Some([172, 17, 0, 2].into()),
            v6: None,
        };
        let port = |ip: &str| Published {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: ip.parse().unwrap(),
            host_port: 8080,
        };
        assert!(port_elements(&target, &[port("127.0.0.1"), port("::"), port("::1")]).is_empty());
        let any = port_elements(&target, &[port("0.0.0.0")]);
        let data = vec![172, 17, 0, 2, 0, 80, 0, 0];
        assert_eq!(
            any[&("any4", vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0], Edge::Start)],
            Some(data)
        );
        let one = port_elements(&target, &[port("10.0.0.1")]);
        assert!(one.contains_key(&(
            "host4",
            vec![10, 0, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            Edge::Start
        )));
    }

    #[test]
    fn intervals_end_after_the_last_address() {
        let mut elements = Elements::new();
        interval(&mut elements, "subnets4", &"172.17.0.0/16".parse().unwrap());
        assert!(elements.contains_key(&("subnets4", vec![172, 18, 0, 0], Edge::End)));
        let mut elements = Elements::new();
        interval(
            &mut elements,
            "subnets4",
            &"255.255.0.0/16".parse().unwrap(),
        );
        assert_eq!(elements.len(), 1);
    }

    #[test]
    fn a_missing_nft_is_named_with_its_remedy() {
        let error = run_nft("/nonexistent/nft", "").unwrap_err();
        assert_eq!(error.kind, types::Kind::Unavailable);
        assert!(error.message.contains("apt-get install nftables"));
    }

    #[test]
    fn finds_chains_that_drop() {
        let listing = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
             \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        assert_eq!(forward_drops(listing), ["ip filter FORWARD"]);
    }
}
