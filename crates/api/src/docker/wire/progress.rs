//! `CreateImageInfo`, `PushImageInfo`: the lines that tell how a transfer is going.

use serde::Serialize;

use super::is_zero;

/// One line of progress; every field is left out when it has nothing to say.
#[derive(Debug, Clone, Default, Serialize)]
pub struct JsonMessage {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The bar as text, for clients that only print.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far a transfer is, bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct ProgressDetail {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

/// Why a transfer failed.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorDetail {
    pub message: String,
}

impl JsonMessage {
    /// A line of text.
    pub fn status(text: impl Into<String>) -> Self {
        Self {
            status: text.into(),
            ..Self::default()
        }
    }
    /// A line of text without meaning, as load and build write it.
    pub fn stream(text: impl Into<String>) -> Self {
        Self {
            stream: text.into(),
            ..Self::default()
        }
    }
    /// The last line of a transfer that failed.
    pub fn error(message: &str) -> Self {
        Self {
            error_detail: Some(ErrorDetail {
                message: message.to_owned(),
            }),
            error: message.to_owned(),
            ..Self::default()
        }
    }
    /// The state of one layer: `id`, its phase, and its bytes where they are counted.
    pub fn layer(
        id: impl Into<String>,
        status: impl Into<String>,
        current: u64,
        total: u64,
    ) -> Self {
        Self {
            status: status.into(),
            progress_detail: Some(ProgressDetail { current, total }),
            progress: bar(current, total),
            id: id.into(),
            ..Self::default()
        }
    }
}

impl JsonMessage {
    /// A line of a pull or push.
    pub fn transfer(
        id: String,
        status: String,
        bytes: Option<(u64, u64)>,
        aux: Option<serde_json::Value>,
    ) -> Self {
        let mut message = match bytes {
            Some((current, total)) => Self::layer(id, status, current, total),
            None if id.is_empty() => Self::status(status),
            None => Self::layer(id, status, 0, 0),
        };
        if aux.is_some() && message.status.is_empty() {
            message.progress_detail = Some(ProgressDetail::default());
        }
        message.aux = aux;
        message
    }
}

/// `[=====>     ]  1.2MB/3MB`, fifty characters wide; empty when nothing is counted.
fn bar(current: u64, total: u64) -> String {
    if current == 0 && total == 0 {
        return String::new();
    }
    if total == 0 || current > total {
        return human(current);
    }
    let done = usize::try_from(current.saturating_mul(50) / total).unwrap_or(50);
    let (head, rest) = if done >= 50 {
        ("=".repeat(50), 0)
    } else {
        ("=".repeat(done), 50 - done - 1)
    };
    let tip = if done >= 50 { "" } else { ">" };
    format!(
        "[{head}{tip}{}] {:>8}/{}",
        " ".repeat(rest),
        human(current),
        human(total)
    )
}

/// Bytes in decimal units with four digits, as docker prints them.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let mut text = format!("{value:.digits$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = |message: &JsonMessage| serde_json::to_string(message).unwrap();
        assert_eq!(
            text(&JsonMessage::status("Pulling")),
            r#"{"status":"Pulling"}"#
        );
        assert_eq!(
            text(&JsonMessage::error("no")),
            r#"{"errorDetail":{"message":"no"},"error":"no"}"#
        );
        assert_eq!(
            text(&JsonMessage::layer("abc", "Waiting", 0, 0)),
            r#"{"status":"Waiting","progressDetail":{},"id":"abc"}"#
        );
    }

    #[test]
    fn sizes_and_bars() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(999), "999B");
        assert_eq!(human(1000), "1kB");
        assert_eq!(human(1_234_567), "1.235MB");
        assert_eq!(human(12_345_678), "12.35MB");
        assert_eq!(
            bar(50, 100),
            format!("[{}>{}]      50B/100B", "=".repeat(25), " ".repeat(24))
        );
        assert_eq!(bar(1, 1), format!("[{}]       1B/1B", "=".repeat(50)));
    }
}
