//! Signs of life for what takes longer than a second, on standard error if it is a terminal.

use std::{future::Future, io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// What is done sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);

fn spinner(what: &str, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Waits for `work`; says what is waited for when it takes long.
pub(crate) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let bar = spinner(what, "{spinner} {msg} ({elapsed})");
    bar.enable_steady_tick(TICK);
    let done = work.await;
    bar.finish_and_clear();
    done
}

/// Counts bytes that move.
#[derive(Debug, Clone)]
pub(crate) struct Meter(ProgressBar);

impl Meter {
    /// Counts from now on.
    pub(crate) fn new(what: &str) -> Self {
        let bar = spinner(
            what,
            "{spinner} {msg} {binary_bytes} ({binary_bytes_per_sec}, {elapsed})",
        );
        // Appears late: a copy of one small file has nothing to show.
        let late = bar.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            if !late.is_finished() {
                late.enable_steady_tick(TICK);
            }
        });
        Self(bar)
    }

    /// Counts nothing.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// `bytes` more have moved.
    pub(crate) fn moved(&self, bytes: usize) {
        self.0.inc(bytes as u64);
    }

    /// Takes the bar off the screen.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
