//! Query parameters with docker's rules.

use std::str::FromStr;

use types::{Error, Filters, Result, Time};

/// The decoded query of a request.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

/// docker's truth: everything but "", 0, no, false and none.
pub(super) fn is_true(text: &str) -> bool {
    !matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "" | "0" | "no" | "false" | "none"
    )
}

impl Query {
    /// Decodes `a=b&c=d`.
    pub fn parse(text: Option<&str>) -> Self {
        Self(
            form_urlencoded::parse(text.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }
    /// The first value of `name`, where it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
    /// The first value of `name` unless it is missing or empty.
    pub fn nonempty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
    /// The first value of `name`, empty when it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }
    /// Every value of `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
    /// A boolean; false when it is missing.
    pub fn flag(&self, name: &str) -> bool {
        is_true(self.text(name))
    }
    /// A boolean with a default for when it is missing.
    pub fn flag_or(&self, name: &str, missing: bool) -> bool {
        self.get(name).map_or(missing, is_true)
    }
    /// A number; missing and empty are `None`.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.nonempty(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Error::invalid(format!("invalid value {text:?} for {name}: want a number"))
                })
            })
            .transpose()
    }
    /// A point in time as clients send it: seconds since 1970, nanoseconds behind a dot.
    pub fn time(&self, name: &str) -> Result<Option<Time>> {
        let Some(text) = self.nonempty(name) else {
            return Ok(None);
        };
        let bad = || {
            Error::invalid(format!(
                "invalid value {text:?} for {name}: want seconds since 1970, such as 1136073600.000000001"
            ))
        };
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let nanos = format!("{fraction:0<9}");
        let nanos = nanos
            .get(..9)
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(bad)?;
        Ok(Some(Time::from_unix(
            seconds.parse().map_err(|_| bad())?,
            nanos,
        )))
    }
    /// A terminal's height and width, `h` and `w`.
    pub fn size(&self) -> Result<(u16, u16)> {
        let side = |name| -> Result<u16> {
            let value: u32 = self.number(name)?.ok_or_else(|| {
                Error::invalid(format!("invalid resize {name}: value is missing"))
            })?;
            Ok(u16::try_from(value).unwrap_or(u16::MAX))
        };
        Ok((side("h")?, side("w")?))
    }
    /// The parameter `filters`.
    pub fn filters(&self) -> Result<Filters> {
        Filters::parse(self.get("filters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let query = Query::parse(Some("a=1&b=False&c=&d=x%20y+z&d=2&n=7&m=q&yes=anything"));
        assert!(
            query.flag("a")
                && !query.flag("b")
                && !query.flag("c")
                && !query.flag("missing")
                && query.flag("yes")
        );
        assert!(query.flag_or("missing", true) && !query.flag_or("b", true));
        assert_eq!(query.all("d").collect::<Vec<_>>(), ["x y z", "2"]);
        assert_eq!(query.number::<u32>("n").unwrap(), Some(7));
        assert_eq!(query.number::<u32>("c").unwrap(), None);
        assert!(query.number::<u32>("m").is_err());
        let query = Query::parse(Some("a=1.5&b=2&c=x&h=24&w=80000"));
        assert_eq!(
            query.time("a").unwrap(),
            Some(Time::from_unix(1, 500_000_000))
        );
        assert_eq!(query.time("b").unwrap(), Some(Time::from_unix(2, 0)));
        assert!(query.time("c").is_err() && query.time("missing").unwrap().is_none());
        assert_eq!(query.size().unwrap(), (24, u16::MAX));
    }
}
