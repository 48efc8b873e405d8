//! What the user of a push sees meanwhile, on standard error.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use term::Format;
use types::Digest;

/// Bars where there is a terminal, lines where there is none.
#[derive(Debug, Clone)]
pub(super) struct View {
    bars: MultiProgress,
    terminal: bool,
    quiet: bool,
}

/// The bar of a layer.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    view: View,
    bar: ProgressBar,
    layer: Digest,
    sent: Arc<AtomicU64>,
}

/// As networks and disks are sold.
pub(super) fn megabytes(bytes: u64) -> String {
    match bytes {
        0 | 50_000.. => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} kB", bytes as f64 / 1e3),
    }
}

impl View {
    pub(super) fn new(output: Format) -> Self {
        Self {
            bars: MultiProgress::new(),
            terminal: io::stderr().is_terminal(),
            quiet: matches!(output, Format::Json),
        }
    }

    pub(super) fn say(&self, words: &str) {
        if self.terminal {
            // Beside bars a line must not be printed over one.
            let _ = self.bars.println(words);
        } else if !self.quiet {
            eprintln!("{words}");
        }
    }

    pub(super) fn waiting(&self, what: &str) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = self
            .bars
            .add(ProgressBar::new_spinner().with_message(what.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// A bar for a layer of so many bytes, of which `sent` have been sent.
    pub(super) fn layer(&self, layer: &Digest, length: u64, sent: Arc<AtomicU64>) -> Bar {
        let bar = if self.terminal {
            self.bars.add(ProgressBar::new(length))
        } else {
            ProgressBar::hidden()
        };
        let template = "{msg} [{bar:30}] {decimal_bytes} of {decimal_total_bytes}, {saved} saved";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let counter = sent.clone();
            let saved = move |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                let saved = state.pos().saturating_sub(counter.load(Ordering::Relaxed));
                let _ = to.write_str(&megabytes(saved));
            };
            bar.set_style(style.progress_chars("=> ").with_key("saved", saved));
        }
        bar.set_message(layer.hex()[..12].to_owned());
        Bar {
            view: self.clone(),
            bar,
            layer: layer.clone(),
            sent,
        }
    }
}

impl Bar {
    pub(super) fn moved(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    pub(super) fn again(&self) {
        self.bar.set_position(0);
    }

    /// Takes it away; says what was done when `total` bytes have been.
    pub(super) fn end(&self, total: Option<u64>) {
        self.bar.finish_and_clear();
        if let Some(total) = total {
            let sent = self.sent.load(Ordering::Relaxed);
            self.view.say(&format!(
                "{}: pushed, {} of {} sent",
                &self.layer.hex()[..12],
                megabytes(sent),
                megabytes(total)
            ));
        }
    }
}
