//! One connection to the attach socket.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    os::unix::net::UnixStream,
};

use shim::proto::{HEADER, MAX_PAYLOAD, header, parse_header};

/// From here on the process's output is not read: the slowest client sets the pace.
const FULL: usize = 256 * 1024;

/// A client, greeted or not yet.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    /// Flags of its hello.
    pub(crate) wants: Option<u8>,
    /// It is to be closed when it has all it is owed.
    pub(crate) finished: bool,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
}

/// A frame from a client.
pub(crate) type Frame = (u8, Vec<u8>);

impl Client {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            wants: None,
            finished: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
        }
    }

    pub(crate) fn has_outgoing(&self) -> bool {
        self.sent < self.outgoing.len()
    }
    pub(crate) fn is_full(&self) -> bool {
        self.outgoing.len() - self.sent >= FULL
    }

    /// It is gone: nothing is owed to it any more.
    pub(crate) fn abandon(&mut self) {
        self.finished = true;
        self.outgoing.clear();
        self.sent = 0;
        self.wants = None;
    }

    /// Reads once; the complete frames. An error means that it is gone.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Vec<Frame>> {
        match self.stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        let mut frames = Vec::new();
        let mut taken = 0;
        while let Some((kind, length)) = parse_header(&self.incoming[taken..]) {
            if length > MAX_PAYLOAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let start = taken + HEADER;
            let Some(payload) = self.incoming.get(start..start + length) else {
                break;
            };
            frames.push((kind, payload.to_vec()));
            taken = start + length;
        }
        self.incoming.drain(..taken);
        self.incoming.shrink_to(64 * 1024);
        Ok(frames)
    }

    /// Sends a frame, or queues what does not go at once. An error means that it is gone.
    pub(crate) fn send(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let header = header(kind, payload.len());
        let mut sent = 0;
        if !self.has_outgoing() {
            sent = match self
                .stream
                .write_vectored(&[IoSlice::new(&header), IoSlice::new(payload)])
            {
                Ok(count) => count,
                Err(error) if is_temporary(&error) => 0,
                Err(error) => return Err(error),
            };
        }
        if sent < HEADER {
            self.outgoing.extend_from_slice(&header[sent..]);
            self.outgoing.extend_from_slice(payload);
        } else {
            self.outgoing.extend_from_slice(&payload[sent - HEADER..]);
        }
        Ok(())
    }

    /// Sends what is queued as far as it goes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.has_outgoing() {
            match self.stream.write(&self.outgoing[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_temporary(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(4096);
        self.sent = 0;
        Ok(())
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
