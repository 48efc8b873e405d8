use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Time {
    Time::parse(text).unwrap()
}
fn seconds(seconds: i64) -> Time {
    Time::from_unix(seconds, 0)
}
fn schedule(text: &str) -> Schedule {
    text.parse().unwrap()
}
const EVERYTHING: &str = "hourly:24,daily:7,weekly:4,monthly:12";

#[test]
fn texts() {
    for text in [
        "none",
        EVERYTHING,
        "daily:7,weekly:4,monthly:12",
        "weekly:1000",
    ] {
        assert_eq!(schedule(text).to_string(), text);
    }
    assert_eq!(schedule("off"), Schedule::NONE);
    assert_eq!(
        schedule("monthly:1, hourly:2").to_string(),
        "hourly:2,monthly:1"
    );
    assert_eq!(schedule("hourly:24"), Schedule::hourly());
    assert_eq!(schedule("daily:7,weekly:4,monthly:12"), Schedule::daily());
    for bad in [
        "",
        "daily",
        "daily:",
        "daily:0",
        "daily:-1",
        "daily:1001",
        "daily:x",
        "yearly:1",
        "daily:1,daily:2",
        "daily:1,",
        "Daily:1",
        "none,daily:1",
        "daily:1:2",
        "daily:99999",
    ] {
        let error = bad.parse::<Schedule>().unwrap_err();
        assert!(
            error.message.contains("invalid snapshot schedule"),
            "{bad}: {error}"
        );
        assert!(
            error.message.contains("hourly:24,daily:7"),
            "{bad}: {error}"
        );
    }
    let json = serde_json::to_string(&schedule(EVERYTHING)).unwrap();
    assert_eq!(json, format!("{EVERYTHING:?}"));
    assert_eq!(
        serde_json::from_str::<Schedule>(&json).unwrap(),
        schedule(EVERYTHING)
    );
    assert!(serde_json::from_str::<Schedule>("\"daily:0\"").is_err());
}

#[test]
fn slots_begin_at_round_times() {
    // A Wednesday.
    let now = at("2026-11-25T02:05:16Z");
    for (period, before, start, next) in [
        (
            Period::Hourly,
            "2026-11-25T01:59:59Z",
            "2026-11-25T02:00:00Z",
            "2026-11-25T03:00:00Z",
        ),
        (
            Period::Daily,
            "2026-11-24T23:59:59Z",
            "2026-11-25T00:00:00Z",
            "2026-11-26T00:00:00Z",
        ),
        (
            Period::Weekly,
            "2026-11-22T23:59:59Z",
            "2026-11-23T00:00:00Z",
            "2026-11-30T00:00:00Z",
        ),
        (
            Period::Monthly,
            "2026-10-31T23:59:59Z",
            "2026-11-01T00:00:00Z",
            "2026-12-01T00:00:00Z",
        ),
    ] {
        let slot = period.slot(now);
        assert_eq!(period.start(slot), at(start), "{period}");
        assert_eq!(period.start(slot + 1), at(next), "{period}");
        assert_eq!(period.slot(at(before)), slot - 1, "{period}");
    }
    assert_eq!(
        Period::Monthly.start(Period::Monthly.slot(at("2026-12-31T00:00:00Z")) + 1),
        at("2027-01-01T00:00:00Z")
    );
}

#[test]
fn nothing_is_due_for_what_has_just_begun() {
    let made = at("2026-11-25T02:05:00Z");
    assert_eq!(
        due(schedule(EVERYTHING), made, &[], at("2026-11-25T02:59:59Z")),
        []
    );
    assert_eq!(
        due(schedule(EVERYTHING), made, &[], at("2026-11-25T03:00:00Z")),
        [Period::Hourly]
    );
    assert_eq!(
        due(schedule(EVERYTHING), made, &[], at("2026-12-01T00:00:00Z")),
        [
            Period::Hourly,
            Period::Daily,
            Period::Weekly,
            Period::Monthly
        ]
    );
    assert_eq!(
        next(schedule(EVERYTHING), made, &[], made),
        Some(at("2026-11-25T03:00:00Z"))
    );
    assert_eq!(
        next(Schedule::daily(), made, &[], made),
        Some(at("2026-11-26T00:00:00Z"))
    );
    assert_eq!(next(Schedule::NONE, made, &[], made), None);
}

/// Takes and drops what is due and expired, as the engine does.
fn tick(schedule: Schedule, since: Time, existing: &mut Vec<Automatic>, now: Time) -> usize {
    let taken = due(schedule, since, existing, now);
    existing.extend(taken.iter().map(|&period| Automatic { period, time: now }));
    let dropped = expired(schedule, existing, now);
    existing.retain(|one| !dropped.contains(one));
    taken.len()
}

#[test]
fn one_catch_up_after_downtime() {
    let (since, mut existing) = (at("2026-01-01T00:00:00Z"), Vec::new());
    assert_eq!(
        tick(
            Schedule::hourly(),
            since,
            &mut existing,
            at("2026-01-01T01:00:01Z")
        ),
        1
    );
    assert_eq!(
        tick(
            Schedule::hourly(),
            since,
            &mut existing,
            at("2026-01-02T00:30:00Z")
        ),
        1
    );
    assert_eq!(
        tick(
            Schedule::hourly(),
            since,
            &mut existing,
            at("2026-01-02T00:31:00Z")
        ),
        0
    );
    assert_eq!(existing.len(), 2);
}

#[test]
fn a_clock_that_was_years_ahead_does_not_stop_the_schedule() {
    let since = at("2026-01-01T00:00:00Z");
    let mut existing = Vec::new();
    for day in 1..=9 {
        tick(
            Schedule::daily(),
            since,
            &mut existing,
            at(&format!("2036-03-0{day}T00:00:00Z")),
        );
    }
    assert_eq!(
        existing
            .iter()
            .filter(|one| one.period == Period::Daily)
            .count(),
        7
    );
    for day in 1..=9 {
        let now = at(&format!("2026-03-0{day}T00:00:00Z"));
        tick(Schedule::daily(), since, &mut existing, now);
        assert!(
            existing.contains(&Automatic {
                period: Period::Daily,
                time: now
            }),
            "{now}"
        );
    }
    // The dates that never were are gone, the true ones are kept.
    let left: Vec<_> = existing
        .iter()
        .filter(|one| one.period == Period::Daily)
        .collect();
    assert_eq!(left.len(), 7);
    assert!(left.iter().all(|one| one.time < at("2027-01-01T00:00:00Z")));
}

#[test]
fn a_shorter_schedule_drops_the_oldest() {
    let existing: Vec<_> = (0..5)
        .map(|hour| Automatic {
            period: Period::Hourly,
            time: seconds(hour * 3600),
        })
        .collect();
    let now = seconds(5 * 3600);
    assert_eq!(expired(schedule("hourly:2"), &existing, now), existing[..3]);
    assert_eq!(expired(Schedule::NONE, &existing, now), existing);
    assert_eq!(expired(schedule("hourly:5"), &existing, now), []);
}

#[test]
fn names() {
    let time = Time::from_unix(at("2026-11-25T02:00:00Z").unix_seconds(), 123);
    for (stamp, again, name) in [
        (
            Stamp::Automatic(Period::Hourly),
            1,
            "auto-hourly-2026-11-25T02.00.00Z",
        ),
        (
            Stamp::Automatic(Period::Monthly),
            2,
            "auto-monthly-2026-11-25T02.00.00Z-2",
        ),
        (Stamp::Safety, 1, "before-rollback-2026-11-25T02.00.00Z"),
        (Stamp::User, 3, "snap-2026-11-25T02.00.00Z-3"),
    ] {
        assert_eq!(stamped(stamp, time, again).as_str(), name);
    }
    for odd in [
        Time::ZERO,
        Time::from_unix(-377_705_023_201, 0),
        Time::from_unix(253_402_207_200, 0),
    ] {
        assert!(!stamped(Stamp::User, odd, u32::MAX).as_str().is_empty());
    }
}

fn schedules() -> impl Strategy<Value = Schedule> {
    [0u16..30, 0u16..10, 0u16..6, 0u16..4].prop_map(Schedule)
}

/// Clocks that run, stand, leap ahead and fall back.
fn clocks() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![
        8 => 1i64..7200,
        2 => 0i64..60,
        1 => 86_400i64..40_000_000,
        1 => -100_000i64..0,
        1 => -400_000_000i64..0,
    ];
    prop::collection::vec(step, 1..150).prop_map(|steps| {
        let mut now = 1_800_000_000;
        steps
            .into_iter()
            .map(|step| {
                now += step;
                now
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn text_form_comes_back(schedule in schedules()) {
        prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[a-z0-9:, -]{0,40}") {
        if let Ok(schedule) = text.parse::<Schedule>() {
            prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
    }

    /// Whatever the clock does: a slot gets one snapshot, a tick takes at most one of each
    /// period, no more are kept than asked for, and the newest stays.
    #[test]
    fn any_clock(schedule in schedules(), clock in clocks()) {
        let since = seconds(1_799_000_000);
        let mut existing = Vec::new();
        for now in clock.into_iter().map(seconds) {
            let taken = due(schedule, since, &existing, now);
            let before = existing.len();
            prop_assert!(tick(schedule, since, &mut existing, now) <= 4);
            prop_assert_eq!(due(schedule, since, &existing, now), []);
            for period in Period::ALL {
                let mut slots: Vec<_> = existing
                    .iter()
                    .filter(|one| one.period == period)
                    .map(|one| period.slot(one.time))
                    .collect();
                prop_assert!(slots.len() <= schedule.keep(period));
                slots.sort_unstable();
                let all = slots.len();
                slots.dedup();
                prop_assert_eq!(slots.len(), all);
            }
            for period in taken {
                let fresh = Automatic { period, time: now };
                prop_assert!(existing.contains(&fresh));
            }
            prop_assert!(existing.len() <= before + 4);
        }
    }

    /// The schedule wakes exactly when it says: nothing is due before, something is then.
    #[test]
    fn next_is_when_something_is_due(schedule in schedules(), clock in clocks(), wait in 0.0f64..1.0) {
        let since = seconds(1_799_000_000);
        let mut existing = Vec::new();
        for now in clock.into_iter().map(seconds) {
            tick(schedule, since, &mut existing, now);
            let Some(at) = next(schedule, since, &existing, now) else {
                prop_assert!(schedule.is_none());
                continue;
            };
            prop_assert!(at > now);
            prop_assert_ne!(due(schedule, since, &existing, at), []);
            let early = now.unix_seconds() + ((at.unix_seconds() - 1 - now.unix_seconds()) as f64 * wait) as i64;
            prop_assert_eq!(due(schedule, since, &existing, seconds(early)), []);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// An honest clock that is looked at once an hour or more often misses no slot.
    #[test]
    fn no_slot_is_missed(step in 600i64..=3600, keep in 1u16..20) {
        let schedule = Schedule([keep; 4]);
        let (since, end) = (1_800_000_000, 1_800_000_000 + 35 * 86_400);
        let (mut now, mut existing, mut taken) = (since, Vec::new(), Vec::new());
        while now < end {
            let fresh = due(schedule, seconds(since), &existing, seconds(now));
            taken.extend(fresh.into_iter().map(|period| (period, period.slot(seconds(now)))));
            tick(schedule, seconds(since), &mut existing, seconds(now));
            now += step;
        }
        for period in Period::ALL {
            let slots: Vec<_> = taken.iter().filter(|one| one.0 == period).map(|one| one.1).collect();
            prop_assert!(slots.windows(2).all(|two| two[1] == two[0] + 1));
            prop_assert_eq!(slots.first().copied(), Some(period.slot(seconds(since)) + 1));
            prop_assert!(existing.iter().filter(|one| one.period == period).count() == slots.len().min(usize::from(keep)));
        }
    }
}
