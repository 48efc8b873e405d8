//! Work that may hang in the kernel, with an end to the waiting.
//!
//! A thread that hangs on a dead disk cannot be ended. It is left behind, and the caller goes
//! on with an error. How many may hang at once is bounded, so that calls against a dead disk
//! do not pile up without end.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use types::{Error, Result, error::ResultExt as _};

/// Threads that may be under way at once.
const MOST: usize = 256;
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

struct Counted;

impl Counted {
    fn new(doing: &str) -> Result<Self> {
        if UNDER_WAY.fetch_add(1, Ordering::SeqCst) >= MOST {
            UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::unavailable(format!(
                "{doing}: {MOST} calls wait for a disk already; look for a dead device in the kernel's log (dmesg)"
            )));
        }
        Ok(Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `work` on a thread of its own; [`types::Kind::Unavailable`] when it takes longer than
/// `patience`. Then it may still end, with nobody to see its result.
pub fn run<T: Send + 'static>(
    doing: &str,
    patience: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let counted = Counted::new(doing)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("disk".into())
        .spawn(move || {
            let _counted = counted;
            let _ = sender.send(work());
        })
        .during(|| format!("{doing}: starting a thread"))?;
    match receiver.recv_timeout(patience) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Error::unavailable(format!(
            "{doing}: no answer from the disk within {} s; look for a dead device in the kernel's log (dmesg)",
            patience.as_secs()
        ))),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::system(format!(
            "{doing}: the work ended without a result"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_left_behind() {
        assert_eq!(run("x", Duration::from_secs(5), || Ok(7)).unwrap(), 7);
        let (hold, held) = mpsc::channel::<()>();
        let error = run("reading x", Duration::from_millis(20), move || {
            let _ = held.recv();
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.kind, types::Kind::Unavailable);
        assert!(error.message.starts_with("reading x: no answer"));
        drop(hold);
        let failed = run::<()>("x", Duration::from_secs(5), || Err(Error::invalid("no")));
        assert_eq!(failed.unwrap_err().message, "no");
    }
}
