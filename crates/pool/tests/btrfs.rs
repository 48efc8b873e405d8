//! The btrfs engine, on loop devices. Needs root.

mod common;

use common::{BtrfsBench, G};

mod in_a_file {
    use super::*;

    fn bench(name: &str) -> BtrfsBench {
        BtrfsBench::new(name, G)
    }
    pool::conformance_tests!(bench);
}
