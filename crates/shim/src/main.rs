//! Supervises one process.
fn main() {}
