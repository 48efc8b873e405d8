//! Any bytes as a layer's tar: refused, or unpacked and given back exactly.
#![no_main]

use std::sync::LazyLock;

static SCRATCH: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a scratch directory"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| image::fuzz::apply(SCRATCH.path(), data));
