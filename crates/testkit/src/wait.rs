//! Waiting for something that happens elsewhere, with a deadline.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Polls `ready` until it says yes; `false` when `limit` passes first.
#[must_use]
pub fn wait_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_at_the_deadline_and_stops_early() {
        assert!(!wait_until(Duration::from_millis(30), || false));
        let mut calls = 0;
        assert!(wait_until(Duration::from_secs(60), || {
            calls += 1;
            calls == 2
        }));
    }
}
