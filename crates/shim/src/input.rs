//! Standard input of the process: a bounded queue before a pipe or a terminal.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

/// From here on no client is read.
const FULL: usize = 64 * 1024;

/// The way into the process.
#[derive(Debug)]
pub(crate) struct Input {
    /// The writing end of the pipe, or the terminal; gone when closed.
    target: Option<OwnedFd>,
    queue: Vec<u8>,
    /// What of the queue is written already.
    written: usize,
    /// Close when the queue is empty.
    closing: bool,
}

impl Input {
    pub(crate) fn new(target: Option<OwnedFd>) -> Self {
        Self {
            target,
            queue: Vec::new(),
            written: 0,
            closing: false,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() - self.written >= FULL
    }

    /// The descriptor to wait for, when something is queued.
    pub(crate) fn waiting(&self) -> Option<&OwnedFd> {
        self.target
            .as_ref()
            .filter(|_| self.written < self.queue.len())
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.target.is_some() && !self.closing {
            self.queue.extend_from_slice(bytes);
            self.write();
        }
    }

    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.write();
    }

    /// Writes what can be written now. A process that reads no more loses the rest.
    pub(crate) fn write(&mut self) {
        while let Some(target) = &self.target
            && self.written < self.queue.len()
        {
            match nix::unistd::write(target, &self.queue[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => self.target = None,
            }
        }
        if self.written == self.queue.len() || self.target.is_none() {
            self.queue.clear();
            self.queue.shrink_to(4096);
            self.written = 0;
            if self.closing {
                self.target = None;
            }
        } else if self.written >= FULL {
            self.queue.drain(..self.written);
            self.written = 0;
        }
    }
}
