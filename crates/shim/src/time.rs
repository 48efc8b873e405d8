//! Wall-clock time as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Appends RFC 3339 in UTC with nanoseconds, trailing zeroes cut, as Go's `RFC3339Nano`.
pub(crate) fn append_now(text: &mut Vec<u8>) {
    append(
        text,
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    );
}

fn append(text: &mut Vec<u8>, since_epoch: Duration) {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    digits(text, year, 4);
    text.push(b'-');
    digits(text, month, 2);
    text.push(b'-');
    digits(text, day, 2);
    text.push(b'T');
    digits(text, seconds / 3600 % 24, 2);
    text.push(b':');
    digits(text, seconds / 60 % 60, 2);
    text.push(b':');
    digits(text, seconds % 60, 2);
    let nanos = since_epoch.subsec_nanos();
    if nanos > 0 {
        text.push(b'.');
        digits(text, nanos.into(), 9);
        while text.last() == Some(&b'0') {
            text.pop();
        }
    }
    text.push(b'Z');
}

fn digits(text: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = text.len();
    text.resize(start + width, b'0');
    for place in text[start..].iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month, day of a day since 1970-01-01 (proleptic Gregorian calendar, counted in eras
/// of 400 years that begin in March).
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, nanos: u32) -> String {
        let mut text = Vec::new();
        append(&mut text, Duration::new(seconds, nanos));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn rfc3339() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_400, 500_000_000), "2000-02-29T00:00:00.5Z");
        assert_eq!(text(1_735_689_599, 1), "2024-12-31T23:59:59.000000001Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00Z");
    }
}
