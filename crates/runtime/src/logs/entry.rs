//! One line of a json-file log.

use bytes::Bytes;
use types::Time;

/// One message of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was read from the container.
    pub time: Time,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// The message with its line end, if it has one.
    pub message: Bytes,
    /// Attributes of the log options, in docker's form `k=v,k=v`.
    pub attributes: String,
}

#[derive(serde::Deserialize)]
struct Json<'a> {
    #[serde(default)]
    log: String,
    #[serde(default, borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
    #[serde(default)]
    attrs: std::collections::BTreeMap<String, String>,
}

impl LogEntry {
    /// Parses a line without its line end.
    pub fn parse(line: &[u8]) -> Option<Self> {
        Self::parse_usual(line).or_else(|| Self::parse_any(line))
    }

    /// The form that the shim and dockerd write, without attributes.
    fn parse_usual(line: &[u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"log\":\"")?;
        let (message, rest) = unescape(rest)?;
        let rest = rest.strip_prefix(b",\"stream\":\"std")?;
        let (stderr, rest) = match rest.strip_prefix(b"out\",\"time\":\"") {
            Some(rest) => (false, rest),
            None => (true, rest.strip_prefix(b"err\",\"time\":\"")?),
        };
        let time = parse_time(rest.strip_suffix(b"\"}")?)?;
        Some(Self {
            time,
            stderr,
            message,
            attributes: String::new(),
        })
    }

    fn parse_any(line: &[u8]) -> Option<Self> {
        let json: Json<'_> = serde_json::from_slice(line).ok()?;
        let attribute = |(name, value): (&String, &String)| {
            format!("{}={}", query_escape(name), query_escape(value))
        };
        let attributes: Vec<String> = json.attrs.iter().map(attribute).collect();
        Some(Self {
            time: Time::parse(&json.time)?,
            stderr: json.stream == "stderr",
            message: json.log.into(),
            attributes: attributes.join(","),
        })
    }
}

/// The bytes of a JSON string up to its closing quote, and what follows that.
fn unescape(text: &[u8]) -> Option<(Bytes, &[u8])> {
    let special = |bytes: &[u8]| bytes.iter().position(|&byte| byte == b'"' || byte == b'\\');
    let mut message = Vec::new();
    let mut rest = text;
    loop {
        let at = special(rest)?;
        message.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            return Some((message.into(), &rest[at + 1..]));
        }
        let length = match rest.get(at + 1)? {
            b'n' => {
                message.push(b'\n');
                2
            }
            b'r' => {
                message.push(b'\r');
                2
            }
            b't' => {
                message.push(b'\t');
                2
            }
            &quoted @ (b'"' | b'\\' | b'/') => {
                message.push(quoted);
                2
            }
            b'u' => {
                let digits = std::str::from_utf8(rest.get(at + 2..at + 6)?).ok()?;
                // Surrogates are for the general parser.
                let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
                message.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                6
            }
            _ => return None,
        };
        rest = &rest[at + length..];
    }
}

/// `2024-01-31T12:34:56.123456789Z`; other forms are for the general parser.
fn parse_time(text: &[u8]) -> Option<Time> {
    let number = |range: std::ops::Range<usize>| {
        text.get(range)?.iter().try_fold(0i64, |value, byte| {
            byte.is_ascii_digit()
                .then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    let fixed = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !fixed
        .iter()
        .all(|&(place, byte)| text.get(place) == Some(&byte))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let seconds = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let nanoseconds = match text.get(19..)? {
        [b'Z'] => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            number(20..20 + digits.len())? * 10i64.pow(9 - u32::try_from(digits.len()).ok()?)
        }
        _ => return None,
    };
    Some(Time::from_unix(
        days(year, month, day) * 86_400 + seconds,
        i32::try_from(nanoseconds).ok()?,
    ))
}

/// Days since 1970-01-01 (proleptic Gregorian calendar; the year is counted from March).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1 - 719_468
}

/// As Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_lines() {
        let line = r#"{"log":"a\"b\\ \u003cü\u0009\n","stream":"stderr","time":"2024-02-29T23:59:59.25Z"}"#;
        let entry = LogEntry::parse_usual(line.as_bytes()).unwrap();
        assert_eq!(entry.message, "a\"b\\ <ü\t\n");
        assert!(entry.stderr);
        assert_eq!(entry.time, Time::parse("2024-02-29T23:59:59.25Z").unwrap());
        assert_eq!(Some(entry), LogEntry::parse_any(line.as_bytes()));
    }

    #[test]
    fn times() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-03-01T12:00:00.000000001Z",
            "2100-02-28T01:02:03.5Z",
            "2026-12-31T23:59:59.123456789Z",
        ] {
            assert_eq!(parse_time(text.as_bytes()), Time::parse(text), "{text}");
        }
        assert_eq!(parse_time(b"2024-01-01 00:00:00Z"), None);
    }

    #[test]
    fn other_lines() {
        let line = r#"{"log":"\ud83d\ude00\n","stream":"stdout","attrs":{"b":"2 &","a":"1"},"time":"2024-01-01T01:00:00+01:00"}"#;
        let entry = LogEntry::parse(line.as_bytes()).unwrap();
        assert_eq!(
            (entry.message.as_ref(), entry.attributes.as_str()),
            ("😀\n".as_bytes(), "a=1,b=2+%26")
        );
        for broken in [
            "",
            "{",
            r#"{"log":"x"#,
            r#"{"log":"\q","stream":"stdout","time":"x"}"#,
        ] {
            assert_eq!(LogEntry::parse(broken.as_bytes()), None, "{broken}");
        }
    }
}
