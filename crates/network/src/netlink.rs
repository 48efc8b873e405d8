//! A lean netlink client: messages are built and read by hand, requests go out in one
//! system call and wait for their acknowledgements.
//!
//! It knows framing only (netlink(7), `linux/netlink.h`); what messages mean is up to
//! [`crate::link`] and [`crate::firewall`]. Calls block for as long as the kernel works,
//! so they belong on blocking threads. A socket acts on the network namespace of the
//! thread that opened it.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::SocketAddrNetlink,
    sockopt::{Timeout, set_socket_timeout},
};

/// Links, addresses and routes: protocol 0.
pub(crate) const ROUTE: Option<Protocol> = None;
/// nftables and conntrack.
pub(crate) const NETFILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;

const EIO: i32 = 5;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// Larger than any datagram of a dump (the kernel fills at most 32 KiB).
const BUFFER: usize = 64 * 1024;
/// Longer than any healthy kernel takes; only a broken one keeps silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A request of `kind` with `flags` beside `REQUEST`, and its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Self(bytes);
        message.pad();
        message
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute.
    pub(crate) fn attr(mut self, kind: u16, payload: &[u8]) -> Self {
        self.put(kind, payload);
        self
    }

    fn put(&mut self, kind: u16, payload: &[u8]) {
        // Payloads are names, addresses and small structs, far below 64 KiB.
        let length = (payload.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.pad();
    }

    /// Appends a 32-bit attribute in host order.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a string attribute with its terminating zero.
    pub(crate) fn string(mut self, kind: u16, text: &str) -> Self {
        let payload: Vec<u8> = text.bytes().chain([0]).collect();
        self.put(kind, &payload);
        self
    }

    /// Appends an attribute whose payload `fill` appends in turn.
    pub(crate) fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.put(kind | NESTED, &[]);
        self = fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Appends raw bytes, as the struct that leads a nested attribute.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.0[6], self.0[7]])
    }

    fn write_to(&self, sequence: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.0);
        out[start..start + 4].copy_from_slice(&(self.0.len() as u32).to_ne_bytes());
        out[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// One answer of a dump.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What follows the header: the fixed part and the attributes.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The attributes after a fixed part of `fixed` bytes.
    pub(crate) fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed..).unwrap_or(&[]))
    }
}

/// The attributes of an answer, or within a nested one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of `kind`.
    pub(crate) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind)
            .map(|(_, payload)| payload)
    }
    /// The attributes within the nested attribute of `kind`.
    pub(crate) fn within(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or(&[]))
    }
    /// A 32-bit attribute in host order.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)
            .and_then(|payload| payload.try_into().ok())
            .map(u32::from_ne_bytes)
    }
    /// A string attribute.
    pub(crate) fn string(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & ATTRIBUTE_TYPE;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket to the kernel's `protocol`.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(fd))
    }

    /// Sends `messages` in one datagram and waits until each that asks for it is
    /// acknowledged. The first refusal is the result; later messages may still have acted.
    pub(crate) fn request(&self, messages: &[Message]) -> io::Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut datagram = Vec::new();
        let mut waiting = 0;
        for (sequence, message) in (1..).zip(messages) {
            message.write_to(sequence, &mut datagram);
            waiting += usize::from(message.flags() & ACK != 0);
        }
        rustix::net::send(&self.0, &datagram, SendFlags::empty())?;
        let mut failed = None;
        while waiting > 0 {
            let received = self.receive()?;
            for (kind, _, body) in Frames(&received) {
                if kind == NLMSG_ERROR {
                    waiting = usize::saturating_sub(waiting, 1);
                    failed = failed.or(refusal(body));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Asks one question that many messages answer, and collects them.
    pub(crate) fn dump(&self, message: Message) -> io::Result<Vec<Answer>> {
        // Interrupted dumps may miss what was there all along; a busy machine needs a few tries.
        for _ in 0..10 {
            if let Some(answers) = self.dump_once(&message)? {
                return Ok(answers);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    fn dump_once(&self, message: &Message) -> io::Result<Option<Vec<Answer>>> {
        let mut datagram = Vec::new();
        message.write_to(1, &mut datagram);
        rustix::net::send(&self.0, &datagram, SendFlags::empty())?;
        let (mut answers, mut whole) = (Vec::new(), true);
        loop {
            let received = self.receive()?;
            for (kind, flags, body) in Frames(&received) {
                whole &= flags & DUMP_INTERRUPTED == 0;
                match kind {
                    NLMSG_DONE => return Ok(whole.then_some(answers)),
                    NLMSG_ERROR => match refusal(body) {
                        Some(error) => return Err(error),
                        None => return Ok(Some(answers)),
                    },
                    _ => answers.push(Answer {
                        body: body.to_vec(),
                    }),
                }
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The error in an acknowledgement; none when it says that all went well.
fn refusal(body: &[u8]) -> Option<io::Error> {
    let code = body
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(-EIO, i32::from_ne_bytes);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

/// The messages of one datagram: kind, flags, body.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = (u16, u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_ne_bytes(self.0.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(self.0.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(self.0.get(6..8)?.try_into().ok()?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, flags, body))
    }
}

/// Whether the kernel says that the object is not there.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    // ENOENT, ENODEV, EADDRNOTAVAIL
    matches!(error.raw_os_error(), Some(2 | 19 | 99))
}

/// Whether the kernel says that the object is there already.
pub(crate) fn is_present(error: &io::Error) -> bool {
    error.raw_os_error() == Some(17)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nests_and_reads_back() {
        let message = Message::new(16, ACK, &[1, 2, 3])
            .u32(7, 9)
            .nest(5, |inner| inner.string(3, "eth0").raw(&[1]));
        let attributes = Attributes(&message.0[HEADER + 4..]);
        assert_eq!(attributes.u32(7), Some(9));
        assert_eq!(attributes.within(5).string(3).unwrap(), "eth0");
        assert_eq!(attributes.get(99), None);
    }

    #[test]
    fn garbage_is_no_message() {
        assert_eq!(Attributes(&[3, 0]).count(), 0);
        assert_eq!(Attributes(&[200, 0, 1, 0, 1]).count(), 0);
        assert_eq!(Attributes(&[0, 0, 1, 0, 1, 1, 1, 1]).count(), 0);
        assert_eq!(Frames(&[0; 16]).count(), 0);
        assert_eq!(Frames(&[255; 32]).count(), 0);
    }

    #[test]
    fn kernel_refuses_and_answers() {
        let socket = Socket::open(ROUTE).unwrap();
        // RTM_GETLINK of everything; the loopback interface is always there.
        assert!(
            !socket
                .dump(Message::new(18, DUMP, &[0; 16]))
                .unwrap()
                .is_empty()
        );
        // RTM_DELLINK of interface number 0x7fffffff.
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&0x7fff_ffffu32.to_ne_bytes());
        let error = socket
            .request(&[Message::new(17, ACK, &fixed)])
            .unwrap_err();
        assert!(is_missing(&error), "{error}");
    }
}
