//! Commits that serve all who wait for one.

use std::sync::{Condvar, Mutex, PoisonError};

/// Counts the commits of a pool.
#[derive(Debug, Default)]
pub(super) struct Commits {
    counts: Mutex<Counts>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    begun: u64,
    ended: u64,
}

impl Commits {
    /// Returns when a commit has ended that began after the call: one's own, made by `commit`, or
    /// somebody else's. Blocks.
    ///
    /// # Errors
    /// Those of `commit`. Where another's fails, one's own is made.
    pub(super) fn share<E>(&self, commit: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // What is under way may have begun before that which is to be committed was done.
        let wanted = counts.begun + 1;
        while counts.begun != counts.ended {
            counts = self
                .ended
                .wait(counts)
                .unwrap_or_else(PoisonError::into_inner);
            if counts.ended >= wanted {
                return Ok(());
            }
        }
        counts.begun += 1;
        drop(counts);
        let result = commit();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => counts.ended = counts.begun,
            Err(_) => counts.begun = counts.ended,
        }
        self.ended.notify_all();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicU32, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn those_who_come_meanwhile_share_the_next() {
        let (commits, made) = (Commits::default(), AtomicU32::new(0));
        let slow = || -> Result<(), ()> {
            made.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(100));
            Ok(())
        };
        thread::scope(|scope| {
            scope.spawn(|| commits.share(slow).unwrap());
            thread::sleep(Duration::from_millis(30));
            for _ in 0..10 {
                scope.spawn(|| commits.share(slow).unwrap());
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 2);
        commits.share(slow).unwrap();
        assert_eq!(made.load(Ordering::SeqCst), 3, "an old one serves nobody");
    }

    #[test]
    fn one_that_fails_serves_nobody() {
        let (commits, made) = (Commits::default(), AtomicU32::new(0));
        let together = Barrier::new(5);
        let failing = || {
            thread::sleep(Duration::from_millis(20));
            // The first of them fails.
            match made.fetch_add(1, Ordering::SeqCst) {
                0 => Err(()),
                _ => Ok(()),
            }
        };
        let failed: usize = thread::scope(|scope| {
            let all: Vec<_> = (0..5)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        commits.share(failing).is_err()
                    })
                })
                .collect();
            all.into_iter()
                .map(|one| usize::from(one.join().unwrap()))
                .sum()
        });
        assert_eq!(failed, 1);
        assert!(made.load(Ordering::SeqCst) >= 2);
    }
}
