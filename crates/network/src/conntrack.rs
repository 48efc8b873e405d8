//! UDP flows that the kernel remembers: a client that keeps sending keeps its flow alive,
//! and with it the way to a container that is gone.
//!
//! TCP needs no such care: a new connection ends what the kernel remembers of an old one.

use std::{collections::HashSet, io};

use types::port::Protocol;

use crate::{
    firewall::{generic, protocol_number},
    model::Published,
    netlink::{ACK, Answer, Attributes, DUMP, Message, NETFILTER, Socket, is_missing},
};

// linux/netfilter/nfnetlink_conntrack.h
const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const FAMILIES: [u8; 2] = [2, 10];

/// Makes the kernel forget the UDP flows to these ports of the machine: the next datagram
/// finds its way anew. Blocks; reads all flows when a UDP port is among them.
pub(crate) fn forget(ports: &[Published]) -> io::Result<()> {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let numbers: HashSet<u16> = udp.map(|port| port.host_port).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    let socket = Socket::open(NETFILTER)?;
    for family in FAMILIES {
        for flow in socket.dump(Message::new(GET, DUMP, &generic(family, 0)))? {
            let Some(tuple) = tuple_to(&flow, &numbers) else {
                continue;
            };
            let delete = Message::new(DELETE, ACK, &generic(family, 0));
            match socket.request(&[delete.nest(TUPLE_ORIGINAL, |message| message.raw(tuple))]) {
                // It ended by itself meanwhile.
                Err(error) if is_missing(&error) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// The raw tuple of a UDP flow that was first sent to one of these ports.
fn tuple_to<'a>(flow: &'a Answer, ports: &HashSet<u16>) -> Option<&'a [u8]> {
    let tuple = flow.attributes(4).get(TUPLE_ORIGINAL)?;
    let protocol = Attributes(tuple).within(TUPLE_PROTOCOL);
    let port = u16::from_be_bytes(protocol.get(DESTINATION_PORT)?.try_into().ok()?);
    let udp = protocol.get(PROTOCOL_NUMBER)? == [protocol_number(Protocol::Udp)];
    (udp && ports.contains(&port)).then_some(tuple)
}
