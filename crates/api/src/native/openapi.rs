//! The OpenAPI 3.1 document, made from the table.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use types::native;

use super::{
    PREFIX,
    table::{Content, Param, Route},
};
use crate::auth;

/// Describes every call of `table`.
pub fn document<S>(table: &[Route<S>]) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = SchemaGenerator::new(settings);
    let failure = generator.subschema_for::<native::Error>();
    let mut paths = Map::new();
    for route in table {
        let path = paths
            .entry(format!("{PREFIX}{}", route.path))
            .or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "kraud",
            "summary": "Volumes with snapshots, rollback and clones: what the Docker Engine API, which kraud serves beside this one, has no words for.",
            "description": "Sizes are bytes, times RFC 3339 in UTC. Readers must ignore fields that they do not know: later versions add some.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "security": [{ "token": [] }, { "certificate": [] }],
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token. Over the socket of the machine none is needed.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate that kraud has signed.",
                },
            },
            "schemas": generator.take_definitions(true),
            "responses": {
                "Failure": {
                    "description": "The call failed. The status is that of the kind of failure.",
                    "content": { "application/json": { "schema": failure } },
                },
            },
        },
    })
}

fn operation<S>(route: &Route<S>, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = wildcards(route.path).map(path_parameter).collect();
    parameters.extend(route.query.iter().map(query_parameter));
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "x-needs": auth::in_words(route.access),
        "responses": {
            route.status.as_str(): answer(route, generator),
            "default": { "$ref": "#/components/responses/Failure" },
        },
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(content) = content(route.request, generator) {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn answer<S>(route: &Route<S>, generator: &mut SchemaGenerator) -> Value {
    let mut answer = json!({ "description": route.status.canonical_reason().unwrap_or_default() });
    if let Some(content) = content(route.answer, generator) {
        answer["content"] = content;
    }
    if let Content::Tar = route.answer {
        answer["headers"] = json!({
            native::PATH_STAT: {
                "description": "A PathStat as JSON, in base64.",
                "schema": { "type": "string", "contentEncoding": "base64" },
            },
        });
    }
    answer
}

fn content(content: Content, generator: &mut SchemaGenerator) -> Option<Value> {
    match content {
        Content::None => None,
        Content::Json(schema) => {
            Some(json!({ "application/json": { "schema": schema(generator) } }))
        }
        Content::Tar => Some(json!({ "application/x-tar": {} })),
        Content::Octets => Some(json!({ "application/octet-stream": {} })),
    }
}

fn path_parameter(name: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": format!("The name of the {name}."),
        "schema": { "type": "string" },
    })
}

fn query_parameter(param: &Param) -> Value {
    json!({
        "name": param.name,
        "in": "query",
        "required": param.required,
        "description": param.description,
        "schema": { "type": "string" },
    })
}

/// The names in braces of a path.
pub(crate) fn wildcards(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::Method;

    use super::*;
    use crate::native::table;

    fn every_reference(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    found.insert(target.clone());
                }
                map.values().for_each(|value| every_reference(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| every_reference(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_call_is_described() {
        let document = document(table());
        let mut calls = 0;
        let mut ids = BTreeSet::new();
        for route in table() {
            let path = format!("{PREFIX}{}", route.path);
            let method = route.method.as_str().to_ascii_lowercase();
            let operation = &document["paths"][&path][&method];
            let at = format!("{method} {path}: {operation}");
            assert!(ids.insert(route.id), "{at}: the id is taken");
            assert_eq!(operation["operationId"], route.id, "{at}");
            assert!(route.summary.ends_with('.'), "{at}");
            assert!(
                operation["responses"][route.status.as_str()].is_object(),
                "{at}"
            );
            assert!(operation["responses"]["default"].is_object(), "{at}");
            // What changes things says what it takes, what reads says what it gives.
            match route.method {
                Method::GET => assert!(!matches!(route.answer, Content::None), "{at}"),
                Method::POST => assert!(!matches!(route.request, Content::None), "{at}"),
                _ => {}
            }
            for name in wildcards(route.path) {
                let named =
                    |parameter: &Value| parameter["name"] == name && parameter["in"] == "path";
                assert!(
                    operation["parameters"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(named),
                    "{at}"
                );
            }
            calls += 1;
        }
        let described: usize = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|path| path.as_object().unwrap().len())
            .sum();
        assert_eq!(described, calls);
    }

    #[test]
    fn every_schema_is_there() {
        let document = document(table());
        let mut references = BTreeSet::new();
        every_reference(&document, &mut references);
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let volume = &document["components"]["schemas"]["Volume"];
        assert_eq!(
            volume["properties"]["name"]["$ref"],
            "#/components/schemas/VolumeName"
        );
        assert!(volume["properties"]["size"]["description"].is_string());
        let required = volume["required"].as_array().unwrap();
        assert!(required.contains(&json!("class")) && !required.contains(&json!("zone")));
    }
}
