//! The deadlines of leases. They live in memory only: a renewal costs no write, and after a
//! restart every lease gets its whole time again, because nobody could renew it meanwhile.
//!
//! Granting and deleting are the writer's; this is what it and the callers share.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine_error;
use crate::{Error, LeaseId, Result};

/// How long after a failed deletion (a full disk) the next attempt is made.
const RETRY: Duration = Duration::from_secs(1);
/// The longest time of a lease: larger ones would overflow the clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The time of a lease in the resolution that is stored.
pub(super) fn checked_ttl(ttl: Duration) -> Result<Duration> {
    if ttl < Duration::from_millis(1) {
        return Err(engine_error(
            "granting a lease",
            "it would expire at once; the least is 1 ms",
        ));
    }
    Ok(ttl.min(LONGEST))
}

struct Term {
    ttl: Duration,
    deadline: Instant,
    /// When the writer looks at it next; later than the deadline after a failed deletion.
    due: Instant,
}

impl Term {
    fn starting(ttl: Duration) -> Self {
        let deadline = Instant::now() + ttl;
        Self {
            ttl,
            deadline,
            due: deadline,
        }
    }
}

pub(super) struct Leases {
    terms: Mutex<HashMap<LeaseId, Term>>,
}

impl Leases {
    pub(super) fn new(stored: Vec<(LeaseId, Duration)>) -> Self {
        let terms = stored
            .into_iter()
            .map(|(lease, ttl)| (lease, Term::starting(ttl)))
            .collect();
        Self {
            terms: Mutex::new(terms),
        }
    }

    fn terms(&self) -> MutexGuard<'_, HashMap<LeaseId, Term>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, lease: LeaseId, ttl: Duration) {
        self.terms().insert(lease, Term::starting(ttl));
    }

    pub(super) fn remove(&self, lease: LeaseId) {
        self.terms().remove(&lease);
    }

    /// Starts the time of `lease` anew. A lease that has run out stays so, even while its
    /// records wait for their deletion.
    pub(super) fn renew(&self, lease: LeaseId) -> Result<()> {
        match self.terms().get_mut(&lease) {
            Some(term) if term.deadline > Instant::now() => {
                *term = Term::starting(term.ttl);
                Ok(())
            }
            _ => Err(Error::LeaseExpired(lease)),
        }
    }

    /// Whether `lease` has time left.
    pub(super) fn is_alive(&self, lease: LeaseId) -> bool {
        self.terms()
            .get(&lease)
            .is_some_and(|term| term.deadline > Instant::now())
    }

    /// When the next lease is due; never: `None`.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.terms().values().map(|term| term.due).min()
    }

    /// The leases that are due, each to be looked at again a while later unless removed.
    pub(super) fn take_due(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        let mut terms = self.terms();
        let due = terms.iter_mut().filter(|(_, term)| term.due <= now);
        due.map(|(lease, term)| {
            term.due = now + RETRY;
            *lease
        })
        .collect()
    }
}
