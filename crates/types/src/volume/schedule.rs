//! When automatic snapshots are taken, and which of them go again.
//!
//! Pure decisions over times: the caller takes and drops snapshots. Each period cuts time into
//! slots that begin at round times in UTC (hours, days, Mondays, firsts of the month), and a slot
//! gets one snapshot. What was missed while kraud was down is therefore made up for once, for the
//! slot that it is now, and a clock that jumps can neither bring duplicates nor stop the
//! schedule. What is kept is counted, not dated: a clock that jumps ahead drops nothing.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil, tz};

use crate::{
    error::{Error, Result},
    name::SnapshotName,
    time::Time,
};

/// How often a kind of automatic snapshot is taken.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Period {
    Hourly,
    Daily,
    Weekly,
    Monthly,
}

impl Period {
    /// All of them, the shortest first.
    pub const ALL: [Self; 4] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly];

    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// The slot that a time falls into; consecutive slots have consecutive numbers.
    fn slot(self, time: Time) -> i64 {
        let seconds = time.unix_seconds();
        match self {
            Self::Hourly => seconds.div_euclid(3600),
            Self::Daily => seconds.div_euclid(86_400),
            // 1970 began on a Thursday; weeks begin on Mondays.
            Self::Weekly => (seconds.div_euclid(86_400) + 3).div_euclid(7),
            Self::Monthly => {
                let date = Timestamp::from_second(seconds)
                    .unwrap_or_default()
                    .to_zoned(tz::TimeZone::UTC)
                    .date();
                i64::from(date.year()) * 12 + i64::from(date.month()) - 1
            }
        }
    }

    /// When a slot begins.
    fn start(self, slot: i64) -> Time {
        let seconds = match self {
            Self::Hourly => slot.saturating_mul(3600),
            Self::Daily => slot.saturating_mul(86_400),
            Self::Weekly => slot
                .saturating_mul(7)
                .saturating_sub(3)
                .saturating_mul(86_400),
            Self::Monthly => return month_start(slot),
        };
        Time::from_unix(seconds, 0)
    }
}

fn month_start(slot: i64) -> Time {
    let (Ok(year), Ok(month)) = (
        i16::try_from(slot.div_euclid(12)),
        i8::try_from(slot.rem_euclid(12) + 1),
    ) else {
        return Time::ZERO;
    };
    civil::Date::new(year, month, 1)
        .and_then(|date| date.to_zoned(tz::TimeZone::UTC))
        .map_or(Time::ZERO, |start| {
            Time::from_unix(start.timestamp().as_second(), 0)
        })
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Period {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|period| period.as_str() == text)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "unknown period {text:?}: hourly, daily, weekly or monthly"
                ))
            })
    }
}

/// How many automatic snapshots of each period are kept. The default is none at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule([u16; 4]);

impl Schedule {
    /// No automatic snapshots.
    pub const NONE: Self = Self([0; 4]);
    /// The most that can be kept of one period.
    pub const MOST: u16 = 1000;

    /// `hourly:24`.
    pub const fn hourly() -> Self {
        Self([24, 0, 0, 0])
    }
    /// `daily:7,weekly:4,monthly:12`.
    pub const fn daily() -> Self {
        Self([0, 7, 4, 12])
    }
    /// How many of a period are kept.
    pub fn keep(self, period: Period) -> usize {
        usize::from(self.0[period as usize])
    }
    /// Whether nothing is ever taken.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
    /// The periods of which some are kept, the shortest first.
    pub fn periods(self) -> impl Iterator<Item = Period> {
        Period::ALL
            .into_iter()
            .filter(move |period| self.keep(*period) > 0)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        for (at, period) in self.periods().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{period}:{}", self.keep(period))?;
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = Error;
    /// `hourly:24,daily:7,weekly:4,monthly:12`, any of them, or `none` (also `off`).
    fn from_str(text: &str) -> Result<Self> {
        if matches!(text, "none" | "off") {
            return Ok(Self::NONE);
        }
        let bad = |why: &str| {
            Error::invalid(format!(
                "invalid snapshot schedule {text:?}: {why}; want something like hourly:24,daily:7,weekly:4,monthly:12, or none"
            ))
        };
        let mut kept = [0; 4];
        for part in text.split(',') {
            let (period, count) = part
                .trim()
                .split_once(':')
                .ok_or_else(|| bad(&format!("{part:?} does not say how many are kept")))?;
            let period: Period = period.parse().map_err(|error: Error| bad(&error.message))?;
            let count = count
                .parse()
                .ok()
                .filter(|count| (1..=Self::MOST).contains(count))
                .ok_or_else(|| {
                    bad(&format!(
                        "{count:?} is not a number from 1 to {}",
                        Self::MOST
                    ))
                })?;
            if std::mem::replace(&mut kept[period as usize], count) != 0 {
                return Err(bad(&format!("{period} stands there twice")));
            }
        }
        Ok(Self(kept))
    }
}

impl TryFrom<String> for Schedule {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

/// An automatic snapshot that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Automatic {
    pub period: Period,
    pub time: Time,
}

/// Which snapshots are to be taken at `now`. `since` is when the schedule came into force, which
/// is when the volume was made or its schedule changed: the slots of that moment count as done,
/// so that no snapshot is taken of what has just begun.
///
/// A clock that was set back over slots which have their snapshots does not take them again.
pub fn due(schedule: Schedule, since: Time, existing: &[Automatic], now: Time) -> Vec<Period> {
    schedule
        .periods()
        .filter(|&period| !is_done(period, period.slot(now), since, existing))
        .collect()
}

fn is_done(period: Period, slot: i64, since: Time, existing: &[Automatic]) -> bool {
    period.slot(since) == slot
        || existing
            .iter()
            .any(|one| one.period == period && period.slot(one.time) == slot)
}

/// When the next snapshot is due: `now` when one is already.
pub fn next(schedule: Schedule, since: Time, existing: &[Automatic], now: Time) -> Option<Time> {
    let next_of = |period: Period| {
        let slot = period.slot(now);
        let open = (slot..)
            .find(|&slot| !is_done(period, slot, since, existing))
            .unwrap_or(slot);
        period.start(open).max(now)
    };
    schedule.periods().map(next_of).min()
}

/// Which automatic snapshots the schedule keeps no longer, the oldest first.
///
/// Those later than `now` were taken before the clock was set back, so they are older than all
/// others; if their dates were believed, nothing new would ever be kept beside them.
pub fn expired(schedule: Schedule, existing: &[Automatic], now: Time) -> Vec<Automatic> {
    let mut dropped: Vec<Automatic> = Vec::new();
    for period in Period::ALL {
        let mut of_period: Vec<Automatic> = existing
            .iter()
            .copied()
            .filter(|one| one.period == period)
            .collect();
        of_period.sort_by_key(|one| age_order(one.time, now));
        let surplus = of_period.len().saturating_sub(schedule.keep(period));
        dropped.extend(&of_period[..surplus]);
    }
    dropped.sort_by_key(|one| age_order(one.time, now));
    dropped
}

/// Sorts the oldest first, whatever the clock did.
pub fn age_order(time: Time, now: Time) -> (bool, Time) {
    (time <= now, time)
}

/// What kraud names a snapshot for which nobody chose a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// `auto-hourly-…`: taken by a schedule.
    Automatic(Period),
    /// `before-rollback-…`: what a rollback replaced.
    Safety,
    /// `snap-…`: a user asked for it.
    User,
}

/// The name of a snapshot that was taken at `time`, such as
/// `auto-hourly-2026-11-25T02.00.00Z`: it sorts by time and holds no colon. A second of the
/// same second needs `-2` behind it, and so on: `again` is 1 for the first.
pub fn stamped(stamp: Stamp, time: Time, again: u32) -> SnapshotName {
    let prefix = match stamp {
        Stamp::Automatic(period) => format!("auto-{period}"),
        Stamp::Safety => "before-rollback".to_owned(),
        Stamp::User => "snap".to_owned(),
    };
    let seconds = Time::from_unix(time.unix_seconds(), 0).to_string();
    let suffix = if again > 1 {
        format!("-{again}")
    } else {
        String::new()
    };
    format!("{prefix}-{}{suffix}", seconds.replace(':', "."))
        .parse()
        .expect("letters, digits, dots and dashes are a name")
}

#[cfg(test)]
mod tests;
