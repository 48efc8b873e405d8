//! Points in time, as docker's API writes them.

use std::fmt;

use jiff::Timestamp;

/// A point in time with nanoseconds; the zero value is Go's zero time, which docker shows
/// as `0001-01-01T00:00:00Z` for "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Option<Timestamp>);

impl Time {
    /// "Never".
    pub const ZERO: Time = Time(None);

    /// The current time.
    pub fn now() -> Self {
        Self(Some(Timestamp::now()))
    }
    /// From seconds and nanoseconds since 1970; out of range becomes [`Time::ZERO`].
    pub fn from_unix(seconds: i64, nanoseconds: i32) -> Self {
        Self(Timestamp::new(seconds, nanoseconds).ok())
    }
    /// From nanoseconds since 1970; out of range becomes [`Time::ZERO`].
    pub fn from_unix_nanos(nanoseconds: i128) -> Self {
        Self(Timestamp::from_nanosecond(nanoseconds).ok())
    }
    /// Parses RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with("0001-01-01T00:00:00") {
            return Some(Self::ZERO);
        }
        text.parse().ok().map(|t| Self(Some(t)))
    }
    /// Whether this is "never".
    pub fn is_zero(self) -> bool {
        self.0.is_none()
    }
    /// Whole seconds since 1970; "never" is Go's -62135596800.
    pub fn unix_seconds(self) -> i64 {
        self.0.map_or(-62_135_596_800, Timestamp::as_second)
    }
    /// Nanoseconds since 1970, 0 for "never".
    pub fn unix_nanos(self) -> i64 {
        self.0
            .and_then(|t| i64::try_from(t.as_nanosecond()).ok())
            .unwrap_or(0)
    }
    /// Time from `earlier` to `self`, zero when it is negative.
    pub fn since(self, earlier: Time) -> std::time::Duration {
        let nanos = self.unix_nanos().saturating_sub(earlier.unix_nanos());
        std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC with nanoseconds, trailing zeroes cut, as Go's `RFC3339Nano`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0001-01-01T00:00:00Z"),
            Some(t) => write!(f, "{t}"),
        }
    }
}
impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Time::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("invalid time {text:?}: want RFC 3339"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        assert_eq!(Time::ZERO.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(
            Time::from_unix(1, 500_000_000).to_string(),
            "1970-01-01T00:00:01.5Z"
        );
        assert_eq!(Time::parse("0001-01-01T00:00:00Z"), Some(Time::ZERO));
        assert_eq!(
            Time::parse("1970-01-01T01:00:01+01:00"),
            Some(Time::from_unix(1, 0))
        );
        let json = serde_json::to_string(&Time::from_unix(2, 0)).unwrap();
        assert_eq!(
            serde_json::from_str::<Time>(&json).unwrap(),
            Time::from_unix(2, 0)
        );
    }
}
