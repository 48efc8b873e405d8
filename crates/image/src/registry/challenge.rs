//! `WWW-Authenticate` headers, taken apart.
//!
//! Source: RFC 9110, section 11.6.1. Broken headers give the challenges that could be read.

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// The parameter `name` (lower case).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// All challenges of an answer.
pub(crate) fn parse(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse_one)
        .collect()
}

fn parse_one(text: &str) -> Vec<Challenge> {
    let mut list: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        let word = rest[..end].to_ascii_lowercase();
        let after = rest[end..].trim_start();
        // `name=` belongs to the challenge before it, anything else opens a new one.
        match (after.strip_prefix('='), list.last_mut()) {
            (Some(value), Some(open)) => {
                let (value, behind) = take_value(value.trim_start());
                open.parameters.insert(word, value);
                rest = behind;
            }
            _ => {
                list.push(Challenge {
                    scheme: word,
                    parameters: BTreeMap::new(),
                });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    list
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A token or quoted string at the start of `text`, and what follows it.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c == ',' || c.is_whitespace())
            .unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_in_one_header() {
        let all = parse_one(
            r#"Basic realm="a, b", Bearer realm="https://x/t",service=reg, scope="repository:a:pull,push""#,
        );
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("realm"), Some("a, b"));
        assert_eq!(
            (all[1].scheme.as_str(), all[1].get("service")),
            ("bearer", Some("reg"))
        );
        assert_eq!(all[1].get("scope"), Some("repository:a:pull,push"));
    }

    #[test]
    fn nonsense_is_harmless() {
        for text in [
            "",
            "=",
            "Bearer realm=\"",
            "\"",
            "Bearer =,=",
            "ü",
            "Bearer realm=\"a\\",
        ] {
            parse_one(text);
        }
    }
}
