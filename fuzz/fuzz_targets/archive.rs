//! Any bytes as an image archive: refused, or read up to what would be recorded.
#![no_main]

use std::sync::LazyLock;

static SCRATCH: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a scratch directory"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| image::fuzz::load(SCRATCH.path(), data));
