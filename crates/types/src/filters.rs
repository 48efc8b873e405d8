//! The `filters` parameter of docker's list calls.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};

/// Filters by name, each with the values of which one must match.
///
/// Source: Docker Engine API, parameter `filters`: a JSON object that maps a name to a list
/// of strings, or (before API 1.22, and still sent by clients) to an object whose keys are
/// the values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Parses the parameter; missing or empty means no filter.
    ///
    /// Fails with [`crate::Kind::InvalidParameter`] when it is not JSON of the wanted shape.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let bad = || {
            Error::invalid(format!(
                "invalid filter: {text:?} is not a JSON object of lists"
            ))
        };
        let object = match serde_json::from_str(text).map_err(|_| bad())? {
            Value::Object(object) => object,
            Value::Null => return Ok(Self::default()),
            _ => return Err(bad()),
        };
        let mut filters = BTreeMap::new();
        for (name, values) in object {
            let values = match values {
                Value::Array(items) => items
                    .into_iter()
                    .map(|item| {
                        if let Value::String(s) = item {
                            Ok(s)
                        } else {
                            Err(bad())
                        }
                    })
                    .collect::<Result<_>>()?,
                Value::Object(set) => set
                    .into_iter()
                    .filter(|(_, on)| on != &Value::Bool(false))
                    .map(|(value, _)| value)
                    .collect(),
                Value::String(one) => vec![one],
                Value::Null => Vec::new(),
                _ => return Err(bad()),
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// Fails, in docker's words, on a filter that is not among `known`.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The values of filter `name`, empty when it was not given.
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether filter `name` was given with at least one value.
    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Whether there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one value.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.into()).or_default().push(value.into());
    }

    /// True when `name` was not given or one of its values satisfies `matches`.
    pub fn any(&self, name: &str, matches: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| matches(value))
    }

    /// True when every value of `name`, each `key` or `key=value`, is among `labels`.
    pub fn labels<'a>(&self, name: &str, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.values(name)
            .iter()
            .all(|wanted| match wanted.split_once('=') {
                Some((key, value)) => get(key) == Some(value),
                None => get(wanted).is_some(),
            })
    }

    /// A boolean filter: `1`/`true`/`0`/`false`; docker's error otherwise.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let mut answer = None;
        for value in self.values(name) {
            let on = match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => return Err(Error::invalid(format!("invalid filter '{name}={value}'"))),
            };
            if answer.is_some_and(|before| before != on) {
                return Err(Error::invalid(format!(
                    "invalid filter '{name}': both true and false"
                )));
            }
            answer = Some(on);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes() {
        let list = Filters::parse(Some(r#"{"label":["a","b=1"]}"#)).unwrap();
        let map = Filters::parse(Some(r#"{"label":{"a":true,"b=1":true,"no":false}}"#)).unwrap();
        assert_eq!(list, map);
        assert!(list.labels("label", |key| match key {
            "a" => Some(""),
            "b" => Some("1"),
            _ => None,
        }));
        assert!(!list.labels("label", |_| Some("2")));
        assert!(list.only(&["label"]).is_ok() && list.only(&["name"]).is_err());
        assert!(Filters::parse(Some("[1]")).is_err() && Filters::parse(Some("{")).is_err());
        assert!(Filters::parse(Some("")).unwrap().is_empty());
    }
}
