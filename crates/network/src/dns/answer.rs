//! One question: answered from what is known here, or to be passed on.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
};
use rand::seq::SliceRandom as _;

use super::names::{View, addresses, name_of};

/// Seconds that an answer may be kept, as docker says.
const TTL: u32 = 600;
/// What every client takes over UDP.
const SMALLEST: u16 = 512;
/// What we take over UDP.
const PAYLOAD: u16 = 1232;
/// The answer to a question that nobody could answer.
pub(super) const FAILED: u8 = 2;
/// The answer to one too many.
pub(super) const REFUSED: u8 = 5;

/// What to do with a packet.
#[derive(Debug)]
pub(super) enum Reply {
    /// Send this.
    Send(Vec<u8>),
    /// Ask others.
    Forward,
    /// It was no question.
    Ignore,
}

/// Answers a packet that came over UDP or TCP.
pub(super) fn reply(packet: &[u8], view: View<'_>, bare_names_stay: bool, udp: bool) -> Reply {
    // Answers are not answered: they would go back and forth.
    if packet.len() < 12 || packet[2] & 0x80 != 0 {
        return Reply::Ignore;
    }
    let Ok(query) = Message::from_vec(packet) else {
        return bare(packet, 1);
    };
    if query.metadata.op_code != OpCode::Query {
        return bare(packet, 4);
    }
    let [question] = query.queries.as_slice() else {
        return bare(packet, 1);
    };
    if question.query_class() != DNSClass::IN {
        return Reply::Forward;
    }
    let mut text = question.name().to_ascii().to_ascii_lowercase();
    text.truncate(text.trim_end_matches('.').len());
    let kind = question.query_type();
    let found = match kind {
        RecordType::A | RecordType::AAAA => {
            addresses(view, &text).map(|all| of_family(all, kind == RecordType::A))
        }
        // So that a mailer goes on to ask for the address.
        RecordType::MX => addresses(view, &text).map(|_| Vec::new()),
        RecordType::PTR => pointer(view, question.name()).map(|name| vec![RData::PTR(PTR(name))]),
        _ => None,
    };
    let stays = || {
        let of_host = matches!(kind, RecordType::A | RecordType::AAAA);
        (of_host && bare_names_stay && !text.contains('.')).then(Vec::new)
    };
    let Some(data) = found.or_else(stays) else {
        return Reply::Forward;
    };
    match encode(&query, question.name(), data, udp) {
        Some(bytes) => Reply::Send(bytes),
        None => bare(packet, FAILED),
    }
}

fn of_family(all: &[IpAddr], v4: bool) -> Vec<RData> {
    let mut data: Vec<RData> = all
        .iter()
        .filter(|address| address.is_ipv4() == v4)
        .map(|address| match address {
            IpAddr::V4(v4) => RData::A(A(*v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
        })
        .collect();
    data.shuffle(&mut rand::rng());
    data
}

fn pointer(view: View<'_>, name: &Name) -> Option<Name> {
    let net = name.parse_arpa_name().ok()?;
    if net.prefix_len() != net.max_prefix_len() {
        return None;
    }
    let mut found = Name::from_ascii(name_of(view, &net.addr())?).ok()?;
    found.set_fqdn(true);
    Some(found)
}

fn encode(query: &Message, name: &Name, data: Vec<RData>, udp: bool) -> Option<Vec<u8>> {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = ResponseCode::NoError;
    message.add_queries(query.queries.iter().cloned());
    message.add_answers(
        data.into_iter()
            .map(|data| Record::from_rdata(name.clone(), TTL, data)),
    );
    let theirs = query.edns.as_ref();
    if theirs.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        message.set_edns(edns);
    }
    let limit = if udp {
        usize::from(theirs.map_or(SMALLEST, |edns| edns.max_payload().max(SMALLEST)))
    } else {
        usize::from(u16::MAX)
    };
    let mut bytes = message.to_vec().ok()?;
    while bytes.len() > limit {
        message.metadata.truncation = true;
        // An address takes 16 bytes or more: never one too few, and soon done.
        let surplus = (bytes.len() - limit).div_ceil(64).max(1);
        let left = message.answers.len().checked_sub(surplus)?;
        message.answers.truncate(left);
        bytes = message.to_vec().ok()?;
    }
    Some(bytes)
}

/// A packet's header and question come back with an error.
fn bare(packet: &[u8], code: u8) -> Reply {
    failure(packet, code).map_or(Reply::Ignore, Reply::Send)
}

/// The answer that says only what went wrong.
pub(super) fn failure(packet: &[u8], code: u8) -> Option<Vec<u8>> {
    let question = question(packet).unwrap_or_default();
    let mut bytes = packet.get(..12)?.to_vec();
    bytes[2] = bytes[2] & 0x79 | 0x80;
    bytes[3] = 0x80 | code & 0xf;
    bytes[4..12].copy_from_slice(&[0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(question);
    Some(bytes)
}

/// The bytes of the first question: its name, type and class.
pub(super) fn question(packet: &[u8]) -> Option<&[u8]> {
    if packet.get(4..6)? == [0, 0] {
        return None;
    }
    let mut at = 12;
    loop {
        match *packet.get(at)? {
            0 => return packet.get(12..at + 5),
            length @ 1..=63 => at += usize::from(length) + 1,
            // Nothing comes before a first name that it could point to.
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use hickory_proto::op::Query;
    use rand::{Rng as _, SeedableRng as _};
    use types::NetworkId;

    use super::{super::names::*, *};

    fn zone(members: usize) -> Arc<Zone> {
        let members = (0..members).map(|number| Member {
            name: format!("c{number}"),
            aliases: vec!["svc".into()],
            addresses: vec![IpAddr::from([10, 0, (number >> 8) as u8, number as u8])],
        });
        Arc::new(Zone::new(&Names {
            network: NetworkId::random(),
            name: "net".into(),
            revision: 1,
            members: members.collect(),
        }))
    }

    fn ask(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn told(packet: &[u8], members: usize, udp: bool) -> Message {
        let links = BTreeMap::new();
        let Reply::Send(bytes) = reply(packet, &[(zone(members), &links)], false, udp) else {
            panic!("no answer");
        };
        assert!(!udp || bytes.len() <= 4096);
        Message::from_vec(&bytes).unwrap()
    }

    #[test]
    fn answers_and_passes_on() {
        let all = told(&ask("SVC.", RecordType::A, None), 3, true);
        assert_eq!(all.answers.len(), 3);
        assert_eq!(all.answers[0].ttl, TTL);
        let none = told(&ask("svc.net.", RecordType::AAAA, None), 3, true);
        assert_eq!(none.metadata.response_code, ResponseCode::NoError);
        assert!(none.answers.is_empty());
        let back = told(
            &ask("2.0.0.10.in-addr.arpa.", RecordType::PTR, None),
            3,
            true,
        );
        assert_eq!(back.answers[0].data.to_string(), "c2.net.");
        let links = BTreeMap::new();
        let view = [(zone(1), &links)];
        let other = ask("elsewhere.", RecordType::A, None);
        assert!(matches!(reply(&other, &view, false, true), Reply::Forward));
        assert!(matches!(reply(&other, &view, true, true), Reply::Send(_)));
        let text = ask("svc.", RecordType::TXT, None);
        assert!(matches!(reply(&text, &view, true, true), Reply::Forward));
    }

    #[test]
    fn shuffles() {
        let firsts: std::collections::HashSet<String> = (0..100)
            .map(|_| {
                told(&ask("svc.", RecordType::A, None), 3, true).answers[0]
                    .data
                    .to_string()
            })
            .collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let packet = ask("svc.", RecordType::A, None);
        let cut = told(&packet, 500, true);
        assert!(cut.metadata.truncation && !cut.answers.is_empty());
        assert!(cut.to_vec().unwrap().len() <= 512);
        let more = told(&ask("svc.", RecordType::A, Some(4096)), 500, true);
        assert!(more.metadata.truncation && more.answers.len() > cut.answers.len());
        assert!(more.edns.is_some());
        let whole = told(&packet, 500, false);
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 500);
    }

    #[test]
    fn garbage_does_no_harm() {
        let links = BTreeMap::new();
        let view = [(zone(3), &links)];
        let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
        let good = ask("svc.net.", RecordType::A, Some(4096));
        for round in 0..200_000 {
            let mut packet: Vec<u8> = if round % 2 == 0 {
                (0..rng.random_range(0..64)).map(|_| rng.random()).collect()
            } else {
                good.clone()
            };
            for _ in 0..rng.random_range(0..4) {
                if !packet.is_empty() {
                    let at = rng.random_range(0..packet.len());
                    packet[at] = rng.random();
                }
            }
            packet.truncate(rng.random_range(0..=packet.len()));
            for udp in [true, false] {
                if let Reply::Send(bytes) = reply(&packet, &view, round % 3 == 0, udp) {
                    assert!(bytes.len() >= 12 && bytes[..2] == packet[..2]);
                    assert!(bytes[2] & 0x80 != 0);
                }
            }
            let _ = failure(&packet, FAILED);
        }
    }
}
