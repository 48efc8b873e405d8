//! Numbers and times in words.

use types::Time;

/// A number of bytes, short: `512B`, `1.5GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.96 would be rounded to 1024.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!(
        "{}{}",
        text.strip_suffix(".0").unwrap_or(&text),
        UNITS[unit]
    )
}

/// How long before `now` a time was, or how long after.
pub fn age(time: Time, now: Time) -> String {
    let seconds = now.unix_seconds().saturating_sub(time.unix_seconds());
    let (number, unit) = match seconds.unsigned_abs() {
        0..60 => (seconds.unsigned_abs(), "second"),
        s @ 60..3600 => (s / 60, "minute"),
        s @ 3600..86_400 => (s / 3600, "hour"),
        s @ 86_400..1_209_600 => (s / 86_400, "day"),
        s @ 1_209_600..5_184_000 => (s / 604_800, "week"),
        s @ 5_184_000..63_072_000 => (s / 2_592_000, "month"),
        s => (s / 31_536_000, "year"),
    };
    let plural = if number == 1 { "" } else { "s" };
    if seconds < 0 {
        format!("in {number} {unit}{plural}")
    } else {
        format!("{number} {unit}{plural} ago")
    }
}

/// A time to the second: `2026-11-25 02:00:00`, in UTC.
pub fn moment(time: Time) -> String {
    let text = Time::from_unix(time.unix_seconds(), 0).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}

/// Text with everything replaced that could drive a terminal.
pub fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (number, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (1_048_575, "1MiB"),
            (10 << 30, "10GiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn ages() {
        let now = Time::from_unix(1_800_000_000, 0);
        let at = |ago: i64| age(Time::from_unix(1_800_000_000 - ago, 0), now);
        assert_eq!(at(0), "0 seconds ago");
        assert_eq!(at(1), "1 second ago");
        assert_eq!(at(3600), "1 hour ago");
        assert_eq!(at(86_400 * 3), "3 days ago");
        assert_eq!(at(86_400 * 21), "3 weeks ago");
        assert_eq!(at(86_400 * 90), "3 months ago");
        assert_eq!(at(86_400 * 800), "2 years ago");
        assert_eq!(at(-7200), "in 2 hours");
        assert_eq!(moment(now), "2027-01-15 08:00:00");
    }

    proptest! {
        /// What is printed is read back as nearly the same.
        #[test]
        fn printed_sizes_are_sizes(number: u64) {
            let text = bytes(number);
            if !text.ends_with("EiB") {
                let back = types::size::parse(&text).unwrap();
                prop_assert!(back.abs_diff(number) as f64 <= number as f64 * 0.05);
            }
            prop_assert!(text.len() <= 9);
        }
    }
}
