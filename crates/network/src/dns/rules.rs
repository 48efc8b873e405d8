//! Port 53 of 127.0.0.11 inside a sandbox, without a socket on it.
//!
//! A program in the container may want port 53 of all addresses for itself. So the sockets
//! have ports of their own, and two rules for each protocol put one number in place of the
//! other on the way out: in questions after everybody else has seen the packet, in answers
//! before. Nothing is tracked, and a container's own tracking sees port 53 both ways.

use std::{io, net::Ipv4Addr};

use crate::{
    firewall::generic,
    netlink::{ACK, CREATE, EXCLUSIVE, Message, NETFILTER, Socket, is_present},
};

// linux/netfilter/nfnetlink.h and nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const APPEND: u16 = 0x800;
const FAMILY_IP: u8 = 2;
const HOOK_OUT: u32 = 3;
const TABLE: &str = "kraud_dns";
/// After filters and translation.
const LAST: i32 = 300;
/// Before connections are tracked.
const FIRST: i32 = -300;
const TCP: u8 = 6;
const UDP: u8 = 17;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const INTERNET_CHECKSUM: u32 = 1;
const EQUAL: u32 = 0;
/// The register that holds what is compared or written.
const REGISTER: u32 = 1;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// Leads port 53 of `address` to these ports, in the namespace of the calling thread. What
/// was led before is forgotten: only then, for the kernel takes its time to delete.
pub(super) fn install(address: Ipv4Addr, udp: u16, tcp: u16) -> io::Result<()> {
    let fresh = [table(NEW_TABLE, CREATE | EXCLUSIVE)];
    match transact(&fresh, address, udp, tcp) {
        Err(error) if is_present(&error) => {
            let again = [table(DELETE_TABLE, 0), table(NEW_TABLE, CREATE)];
            transact(&again, address, udp, tcp)
        }
        other => other,
    }
}

fn table(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags | ACK, &generic(FAMILY_IP, 0)).string(1, TABLE)
}

fn transact(tables: &[Message], address: Ipv4Addr, udp: u16, tcp: u16) -> io::Result<()> {
    let mut messages = vec![Message::new(BATCH_BEGIN, 0, &generic(0, SUBSYSTEM))];
    messages.extend_from_slice(tables);
    messages.push(chain("questions", LAST));
    messages.push(chain("answers", FIRST));
    for (protocol, port) in [(UDP, udp), (TCP, tcp)] {
        let ask = Rewrite {
            protocol,
            address_at: 16,
            address,
            port_at: DESTINATION_PORT,
            from: 53,
            to: port,
        };
        let answer = Rewrite {
            address_at: 12,
            port_at: SOURCE_PORT,
            from: port,
            to: 53,
            ..ask
        };
        messages.push(rule("questions", &ask));
        messages.push(rule("answers", &answer));
    }
    messages.push(Message::new(BATCH_END, 0, &generic(0, SUBSYSTEM)));
    Socket::open(NETFILTER)?.request(&messages)
}

fn chain(name: &str, priority: i32) -> Message {
    Message::new(NEW_CHAIN, CREATE | ACK, &generic(FAMILY_IP, 0))
        .string(1, TABLE)
        .string(3, name)
        .nest(4, |hook| {
            hook.attr(1, &HOOK_OUT.to_be_bytes())
                .attr(2, &priority.to_be_bytes())
        })
        .string(7, "filter")
}

/// Packets of `protocol` with `address` and port `from` get port `to`.
#[derive(Clone, Copy)]
struct Rewrite {
    protocol: u8,
    address_at: u32,
    address: Ipv4Addr,
    port_at: u32,
    from: u16,
    to: u16,
}

fn rule(chain: &str, what: &Rewrite) -> Message {
    Message::new(NEW_RULE, CREATE | APPEND | ACK, &generic(FAMILY_IP, 0))
        .string(1, TABLE)
        .string(2, chain)
        .nest(4, |list| {
            let list = load(list, NETWORK_HEADER, 9, 1);
            let list = compare(list, &[what.protocol]);
            let list = load(list, NETWORK_HEADER, what.address_at, 4);
            let list = compare(list, &what.address.octets());
            let list = load(list, TRANSPORT_HEADER, what.port_at, 2);
            let list = compare(list, &what.from.to_be_bytes());
            let list = immediate(list, &what.to.to_be_bytes());
            let checksum = if what.protocol == TCP { 16 } else { 6 };
            store(list, what.port_at, 2, checksum)
        })
}

fn expression(list: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    list.nest(1, |one| one.string(1, name).nest(2, fill))
}

fn number(message: Message, kind: u16, value: u32) -> Message {
    message.attr(kind, &value.to_be_bytes())
}

fn load(list: Message, base: u32, offset: u32, length: u32) -> Message {
    expression(list, "payload", |it| {
        let it = number(number(it, 1, REGISTER), 2, base);
        number(number(it, 3, offset), 4, length)
    })
}

fn compare(list: Message, value: &[u8]) -> Message {
    expression(list, "cmp", |it| {
        number(number(it, 1, REGISTER), 2, EQUAL).nest(3, |data| data.attr(1, value))
    })
}

fn immediate(list: Message, value: &[u8]) -> Message {
    expression(list, "immediate", |it| {
        number(it, 1, REGISTER).nest(2, |data| data.attr(1, value))
    })
}

fn store(list: Message, offset: u32, length: u32, checksum: u32) -> Message {
    expression(list, "payload", |it| {
        let it = number(number(it, 2, TRANSPORT_HEADER), 3, offset);
        let it = number(number(it, 4, length), 5, REGISTER);
        number(number(it, 6, INTERNET_CHECKSUM), 7, checksum)
    })
}
