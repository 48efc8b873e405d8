//! Any bytes as a JSON body or a parameter: decoded, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::fuzz::body(data));
