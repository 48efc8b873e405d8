//! JSON bodies read as Go reads them.
//!
//! Docker's clients count on three habits of Go's decoder that serde does not have: field
//! names match whatever their case, `null` means "not given" for any type, and a later
//! duplicate wins. [`Go`] wraps a parsed value and gives any serde type these habits. Types
//! whose structs use `flatten` see their fields as a map; [`strip_nulls`] helps there.

use serde::de::{
    DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
    value::{BorrowedStrDeserializer, StringDeserializer},
};
use serde_json::{Error, Map, Value};

/// A JSON value that deserializes by Go's rules.
pub(super) struct Go(pub Value);

/// Removes every null field of `object` itself.
pub(super) fn strip_nulls(object: &mut Map<String, Value>) {
    object.retain(|_, value| !value.is_null());
}

macro_rules! number {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            if self.0.is_null() { visitor.$visit(Default::default()) } else { self.0.$method(visitor) }
        }
    )*};
}

impl<'de> Deserializer<'de> for Go {
    type Error = Error;

    number! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64
        deserialize_f32 visit_f32 deserialize_f64 visit_f64
        deserialize_char visit_char
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(object) => visitor.visit_map(Entries::all(object)),
            other => other.deserialize_any(visitor),
        }
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() {
            visitor.visit_str("")
        } else {
            self.0.deserialize_str(visitor)
        }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() {
            visitor.visit_str("")
        } else {
            self.0.deserialize_string(visitor)
        }
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_bytes(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_byte_buf(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_unit(visitor)
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items(Vec::new().into_iter())),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            other => other.deserialize_seq(visitor),
        }
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Entries::all(Map::new())),
            Value::Object(object) => visitor.visit_map(Entries::all(object)),
            other => other.deserialize_map(visitor),
        }
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Entries::all(Map::new())),
            Value::Object(object) => visitor.visit_map(Entries::fields(object, fields)),
            other => other.deserialize_map(visitor),
        }
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items(std::vec::IntoIter<Value>);
impl<'de> SeqAccess<'de> for Items {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .next()
            .map(|item| seed.deserialize(Go(item)))
            .transpose()
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

enum Key {
    Field(&'static str),
    Other(String),
}

struct Entries {
    left: std::vec::IntoIter<(Key, Value)>,
    value: Value,
}

impl Entries {
    fn all(object: Map<String, Value>) -> Self {
        let entries: Vec<_> = object
            .into_iter()
            .map(|(key, value)| (Key::Other(key), value))
            .collect();
        Self {
            left: entries.into_iter(),
            value: Value::Null,
        }
    }

    /// The entries that are fields, by their proper names, without nulls and duplicates.
    fn fields(object: Map<String, Value>, fields: &'static [&'static str]) -> Self {
        let mut found: Vec<(&'static str, Value)> = Vec::with_capacity(object.len());
        for (key, value) in object {
            let field = fields
                .iter()
                .find(|field| **field == key)
                .or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(&key)));
            let Some(field) = field.filter(|_| !value.is_null()) else {
                continue;
            };
            match found.iter_mut().find(|(known, _)| known == field) {
                Some(known) => known.1 = value,
                None => found.push((field, value)),
            }
        }
        let entries: Vec<_> = found
            .into_iter()
            .map(|(field, value)| (Key::Field(field), value))
            .collect();
        Self {
            left: entries.into_iter(),
            value: Value::Null,
        }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.left.next() else {
            return Ok(None);
        };
        self.value = value;
        match key {
            Key::Field(name) => seed.deserialize(BorrowedStrDeserializer::<Error>::new(name)),
            Key::Other(name) => seed.deserialize(StringDeserializer::<Error>::new(name)),
        }
        .map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Go(self.value.take()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Sample {
        name: String,
        size: i64,
        tags: Option<Vec<String>>,
        labels: BTreeMap<String, String>,
        inner: Option<Box<Sample>>,
        pair: [u32; 2],
    }

    fn read(value: Value) -> Result<Sample, Error> {
        Sample::deserialize(Go(value))
    }

    #[test]
    fn case_null_and_duplicates() {
        let sample = read(json!({
            "name": "a", "Name": "b", "SIZE": 4, "Unknown": {"x": [1]}, "tags": null, "Pair": null,
            "Labels": {"keep": null, "Case": "x"}, "inner": {"nAme": null, "size": 1},
        }))
        .unwrap();
        assert_eq!(sample.name, "b");
        assert_eq!((sample.size, sample.tags, sample.pair), (4, None, [0, 0]));
        assert_eq!(
            sample.labels,
            BTreeMap::from([("keep".into(), String::new()), ("Case".into(), "x".into())])
        );
        assert_eq!(sample.inner.unwrap().size, 1);
        assert_eq!(read(Value::Null).unwrap(), Sample::default());
    }

    #[test]
    fn wrong_types_are_errors() {
        for bad in [
            json!({"Name": 1}),
            json!({"Size": "1"}),
            json!({"Tags": "x"}),
            json!([]),
            json!("x"),
            json!({"Labels": []}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn specs() {
        let config = types::Config::deserialize(Go(json!({
            "cmd": "true", "Volumes": {"/data": null}, "Labels": null, "StopTimeout": 3, "Env": ["A=1"],
        })))
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["true"]);
        assert!(config.volumes.unwrap().contains_key("/data"));
        assert_eq!(config.stop_timeout, Some(3));
        let host = types::HostConfig::deserialize(Go(json!({
            "PortBindings": {"80/tcp": null, "81": [{"HostPort": "5", "HostIp": null}]}, "Memory": 5, "NetworkMode": "host",
        })))
        .unwrap();
        assert_eq!(host.resources.memory, 5);
        assert_eq!(host.port_bindings.unwrap().len(), 2);
    }
}
