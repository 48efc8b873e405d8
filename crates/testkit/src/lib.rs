//! What tests of several crates share: a temporary daemon, images made without a registry, leak counters
//! and waiting with a deadline.
//!
//! Owns no expectation about behaviour: that is the tests' own. Depends on none of the other crates, so
//! that every one of them may use it. Errors are plain [`std::io::Error`]s, for a test only prints them.

mod daemon;
mod image;
mod leaks;
mod wait;

pub use daemon::Daemon;
pub use image::{TarBuilder, busybox_archive, busybox_path, docker_archive};
pub use leaks::Leaks;
pub use wait::wait_until;
