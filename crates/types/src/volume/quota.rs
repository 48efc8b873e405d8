//! How much a volume may take of its pool.
//!
//! A limit of the pool counts live data and what snapshots pin together. The user was promised
//! that writing up to `size` works, and automatic snapshots must not break that promise. So
//! while there are some, the limit has a reserve above `size`; when the volume passes `size`,
//! they are dropped, oldest first, before a writer reaches the limit. What only rollbacks left
//! gets no reserve: it is dropped when the volume comes near its size. Snapshots that a user
//! made are never dropped, and count.

use serde::{Deserialize, Serialize};

/// The reserve's bounds.
const LEAST: u64 = 64 << 20;
const MOST: u64 = 4 << 30;
/// How near to its size a volume gives up what rollbacks left.
const NEAR: u64 = 16 << 20;

/// Which snapshots of a volume can be dropped for space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Droppable {
    None,
    /// Only those that rollbacks left.
    Safety,
    /// Automatic ones, and maybe others.
    Automatic,
}

/// The bytes above `size` that automatic snapshots may pin for a moment.
pub fn reserve(size: u64) -> u64 {
    (size / 8).clamp(LEAST, MOST)
}

/// The limit to set on the pool for a volume of `size`.
pub fn hard_limit(size: u64, droppable: Droppable) -> u64 {
    match droppable {
        Droppable::Automatic => size.saturating_add(reserve(size)),
        Droppable::Safety | Droppable::None => size,
    }
}

/// From how many bytes on, of what counts against the limit, snapshots have to go.
pub fn report_above(size: u64, droppable: Droppable) -> Option<u64> {
    match droppable {
        Droppable::Automatic => Some(size),
        // Near enough that a rollback can be undone for as long as possible, and far enough
        // that a writer of ordinary speed does not come first.
        Droppable::Safety => Some(size.saturating_sub((size / 32).max(NEAR)).max(size / 2)),
        Droppable::None => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserves() {
        use Droppable::{Automatic, None as Nothing, Safety};
        assert_eq!(hard_limit(10 << 30, Nothing), 10 << 30);
        assert_eq!(hard_limit(10 << 30, Safety), 10 << 30);
        assert_eq!(hard_limit(16 << 30, Automatic), 18 << 30);
        assert_eq!(hard_limit(1 << 20, Automatic), 65 << 20);
        assert_eq!(hard_limit(1 << 40, Automatic), (1 << 40) + (4 << 30));
        assert_eq!(report_above(8, Nothing), None);
        assert_eq!(report_above(8, Safety), Some(4));
        assert_eq!(report_above(32 << 30, Safety), Some(31 << 30));
        assert_eq!(report_above(8, Automatic), Some(8));
    }

    proptest! {
        /// The limit is never below the size, and there is always room between the moment when
        /// snapshots have to go and the moment when a write fails.
        #[test]
        fn room_to_react(size in 1u64..=u64::MAX / 2) {
            prop_assert_eq!(hard_limit(size, Droppable::Safety), size);
            let limit = hard_limit(size, Droppable::Automatic);
            prop_assert!(limit - size >= LEAST && limit - size <= MOST);
            prop_assert!(report_above(size, Droppable::Automatic) < Some(limit));
            prop_assert!(report_above(size, Droppable::Safety) <= Some(size));
        }
    }
}
