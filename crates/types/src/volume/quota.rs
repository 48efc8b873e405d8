//! How much a volume may take of its pool.
//!
//! A limit of the pool counts live data and what snapshots pin together. The user was promised
//! that writing up to `size` works, and automatic snapshots must not break that promise. So
//! while there are some, the limit has a reserve above `size`; when the volume passes `size`,
//! they are dropped, oldest first, before a writer reaches the limit. Snapshots that a user made
//! are never dropped, and count.

/// The reserve's bounds.
const LEAST: u64 = 64 << 20;
const MOST: u64 = 4 << 30;

/// The bytes above `size` that automatic snapshots may pin for a moment.
pub fn reserve(size: u64) -> u64 {
    (size / 8).clamp(LEAST, MOST)
}

/// The limit to set on the pool for a volume of `size`.
pub fn hard_limit(size: u64, has_automatic_snapshots: bool) -> u64 {
    if has_automatic_snapshots {
        size.saturating_add(reserve(size))
    } else {
        size
    }
}

/// Whether automatic snapshots have to go, where `charged` is what counts against the limit.
pub fn pressure(charged: u64, size: u64) -> bool {
    charged > size
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserves() {
        assert_eq!(hard_limit(10 << 30, false), 10 << 30);
        assert_eq!(hard_limit(16 << 30, true), 18 << 30);
        assert_eq!(hard_limit(1 << 20, true), 65 << 20);
        assert_eq!(hard_limit(1 << 40, true), (1 << 40) + (4 << 30));
        assert!(pressure(11, 10) && !pressure(10, 10));
    }

    proptest! {
        /// The limit is never below the size, and there is always room between the moment when
        /// snapshots have to go and the moment when a write fails.
        #[test]
        fn room_to_react(size in 1u64..=u64::MAX / 2) {
            prop_assert_eq!(hard_limit(size, false), size);
            let limit = hard_limit(size, true);
            prop_assert!(limit - size >= LEAST && limit - size <= MOST);
            prop_assert!(pressure(limit, size));
        }
    }
}
