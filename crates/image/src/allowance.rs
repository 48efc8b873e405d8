//! What somebody may bring into the layer store.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use types::Digest;

/// Bytes that a file takes at the least, and a multiple of which it takes.
const BLOCK: u64 = 4096;

/// The bytes that a file's content counts for.
pub(crate) fn charge_of(content: u64) -> u64 {
    content.div_ceil(BLOCK).max(1).saturating_mul(BLOCK)
}

/// Which layers on the disk somebody may use by digest alone, and how much may come. Cheap to
/// clone; clones share what is left.
///
/// The default trusts no layer and has no end.
#[derive(Debug, Clone, Default)]
pub struct Allowance(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    trusted: Trusted,
    room: Option<Room>,
}

/// Layers that somebody has already. All others must be sent: a digest is no proof.
#[derive(Debug)]
enum Trusted {
    All,
    These(HashSet<Digest>),
}

impl Default for Trusted {
    fn default() -> Self {
        Self::These(HashSet::new())
    }
}

#[derive(Debug)]
struct Room {
    left: AtomicU64,
    refusal: String,
}

impl Allowance {
    /// For whoever has all that is there.
    pub fn all() -> Self {
        Self(Arc::new(Inner {
            trusted: Trusted::All,
            room: None,
        }))
    }

    /// For somebody who has these layers.
    pub fn of(trusted: HashSet<Digest>) -> Self {
        Self(Arc::new(Inner {
            trusted: Trusted::These(trusted),
            room: None,
        }))
    }

    /// For somebody who has these layers and may bring so many bytes more; `refusal` is what is
    /// said of more.
    pub fn up_to(trusted: HashSet<Digest>, bytes: u64, refusal: String) -> Self {
        Self(Arc::new(Inner {
            trusted: Trusted::These(trusted),
            room: Some(Room {
                left: AtomicU64::new(bytes),
                refusal,
            }),
        }))
    }

    /// Whether the layer need not be sent.
    pub fn trusts(&self, diff_id: &Digest) -> bool {
        match &self.0.trusted {
            Trusted::All => true,
            Trusted::These(these) => these.contains(diff_id),
        }
    }

    /// Takes bytes from what may come.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`] when there are not so many left.
    pub(crate) fn take(&self, bytes: u64) -> io::Result<()> {
        let Some(room) = &self.0.room else {
            return Ok(());
        };
        let taken = |left: u64| left.checked_sub(bytes);
        match room
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                room.refusal.clone(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_what_is_left() {
        let one = Allowance::up_to(HashSet::new(), 10_000, "too much".into());
        let other = one.clone();
        one.take(charge_of(0)).unwrap();
        other.take(charge_of(4096)).unwrap();
        let error = one.take(charge_of(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(error.to_string(), "too much");
        assert_eq!(charge_of(4097), 8192);
        assert_eq!(charge_of(u64::MAX), u64::MAX);
        Allowance::default().take(u64::MAX).unwrap();
    }
}
