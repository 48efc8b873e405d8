//! How much a volume may take of its pool.
//!
//! A limit of the pool counts live data and what snapshots pin together. The user was promised
//! that writing up to `size` works, and automatic snapshots must not break that promise. So
//! while there are some, the limit has a reserve above `size`; when the volume passes `size`,
//! they are dropped, oldest first, before a writer reaches the limit. What a rollback left is
//! what undoes it, and stays until somebody writes on: a full volume that was rolled back gets
//! a little room above what it held at that moment, and gives up its past when that is written
//! to. Snapshots that a user made are never dropped, and count.

use serde::{Deserialize, Serialize};

/// The reserve's bounds.
const LEAST: u64 = 64 << 20;
const MOST: u64 = 4 << 30;
/// How near to its size a volume gives up what rollbacks left.
const NEAR: u64 = 16 << 20;
/// The bounds of the room above what a full volume held when it was rolled back.
const LEAST_ROOM: u64 = 16 << 20;
const MOST_ROOM: u64 = 64 << 20;

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

/// How a volume is kept to its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The limit to set on the pool, in bytes.
    pub hard: u64,
    /// From how many bytes on, of what counts against the limit, snapshots have to go.
    pub report_above: Option<u64>,
}

/// What keeps a volume to `size`, of which `held` bytes are charged at this moment.
pub fn limit(size: u64, droppable: Droppable, held: u64) -> Limit {
    match droppable {
        Droppable::Automatic => Limit {
            hard: size.saturating_add(reserve(size)),
            report_above: Some(size),
        },
        Droppable::Safety => {
            // Near enough to the size that a rollback can be undone for as long as possible, and
            // far enough that a writer of ordinary speed does not come first.
            let near = size.saturating_sub((size / 32).max(NEAR)).max(size / 2);
            let room = (size / 8).clamp(LEAST_ROOM, MOST_ROOM);
            let report = near.max(held.saturating_add(room / 4));
            // However often this is asked while a volume fills, its room ends somewhere.
            let most = size.saturating_add(reserve(size));
            Limit {
                hard: size.max(report.saturating_add(room - room / 4)).min(most),
                report_above: Some(report.min(most - room / 4)),
            }
        }
        Droppable::None => Limit {
            hard: size,
            report_above: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserves() {
        use Droppable::{Automatic, None as Nothing, Safety};
        let of = |size, droppable, held| {
            let limit = limit(size, droppable, held);
            (limit.hard, limit.report_above)
        };
        assert_eq!(of(10 << 30, Nothing, 0), (10 << 30, None));
        assert_eq!(of(16 << 30, Automatic, 0), (18 << 30, Some(16 << 30)));
        assert_eq!(of(1 << 20, Automatic, 0), (65 << 20, Some(1 << 20)));
        assert_eq!(of(1 << 40, Automatic, 0).0, (1 << 40) + (4 << 30));
        // Far from full: its size is the limit, and its past goes before that.
        assert_eq!(of(32 << 30, Safety, 1 << 30), (32 << 30, Some(31 << 30)));
        // Full when it was rolled back: some room to write on, and its past goes on the way.
        assert_eq!(of(64 << 20, Safety, 64 << 20), (80 << 20, Some(68 << 20)));
        // And no more than an automatic snapshot would get.
        assert_eq!(of(64 << 20, Safety, 1 << 40), (128 << 20, Some(124 << 20)));
    }

    proptest! {
        /// The limit is never below the size, and there is always room between the moment when
        /// snapshots have to go and the moment when a write fails.
        #[test]
        fn room_to_react(size in 1u64..=u64::MAX / 2, held in 0..=u64::MAX) {
            let automatic = limit(size, Droppable::Automatic, held);
            prop_assert!(automatic.hard - size >= LEAST && automatic.hard - size <= MOST);
            prop_assert!(automatic.report_above < Some(automatic.hard));
            let safety = limit(size, Droppable::Safety, held);
            prop_assert!(safety.hard >= size && safety.hard <= automatic.hard);
            prop_assert!(safety.report_above < Some(safety.hard));
        }

        /// What a rollback left stays while nobody writes.
        #[test]
        fn undo_of_a_full_volume(size in 1u64..=u64::MAX / 4) {
            let limit = limit(size, Droppable::Safety, size);
            prop_assert!(limit.report_above > Some(size));
        }
    }
}
