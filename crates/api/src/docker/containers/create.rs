//! `POST /containers/create`.

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use engine::request::CreateRequest;
use serde::Deserialize;
use serde_json::{Map, Value};
use types::{Config, Error, Result, container::EndpointSettings};

use crate::docker::{
    body, call, convert::request, router::Call, wire::container::ContainerCreated,
};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkingConfig {
    endpoints_config: BTreeMap<String, EndpointSettings>,
}

/// `POST /containers/create`
pub(crate) async fn create(mut call: Call) -> Result<Response> {
    let body = call.json_value().await?.ok_or_else(body::empty)?;
    let mut request = parse(body)?;
    request.name = call.query.nonempty("name").map(str::to_owned);
    request.platform = call.query.nonempty("platform").map(str::to_owned);
    let created = call.state.container_create(&call.scope(), request).await?;
    let body = ContainerCreated {
        id: created.id.to_string(),
        warnings: created.warnings,
    };
    call::json_with(StatusCode::CREATED, &body)
}

/// The body is a `ContainerConfig` with two more fields.
pub(super) fn parse(body: Value) -> Result<CreateRequest> {
    let Value::Object(mut object) = body else {
        return Err(Error::invalid("invalid JSON: want an object"));
    };
    let host = take(&mut object, "HostConfig");
    let networking = take(&mut object, "NetworkingConfig");
    object.retain(|_, value| !value.is_null());
    if object.is_empty() {
        return Err(Error::invalid(
            "config cannot be empty in order to create a container",
        ));
    }
    let config: Config = body::decode(Value::Object(object))?;
    let networking: NetworkingConfig = body::decode(networking)?;
    Ok(CreateRequest {
        name: None,
        platform: None,
        config,
        host: request::host_config(host)?,
        endpoints: networking.endpoints_config,
    })
}

/// Takes a field out whatever its case; null when it is not there.
fn take(object: &mut Map<String, Value>, name: &str) -> Value {
    let key = object
        .keys()
        .find(|key| key.eq_ignore_ascii_case(name))
        .cloned();
    key.and_then(|key| object.shift_remove(&key))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_bodies() {
        let request = parse(json!({
            "Image": "busybox", "Cmd": ["true"], "Env": null, "Unknown": 1,
            "HostConfig": {"Memory": 6_000_000, "Binds": null, "AutoRemove": true},
            "NetworkingConfig": {"EndpointsConfig": {"web": null, "other": {"Aliases": ["x"], "IPAMConfig": {"IPv4Address": "10.0.0.2"}}}},
        }))
        .unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(request.host.resources.memory, 6_000_000);
        assert!(request.host.auto_remove);
        assert_eq!(request.endpoints["web"], EndpointSettings::default());
        assert_eq!(
            request.endpoints["other"].aliases.as_deref(),
            Some(&["x".to_owned()][..])
        );
    }

    #[test]
    fn refused_bodies() {
        let message = |body| parse(body).unwrap_err().message;
        assert_eq!(
            message(json!({})),
            "config cannot be empty in order to create a container"
        );
        assert_eq!(
            message(json!({"HostConfig": {}})),
            "config cannot be empty in order to create a container"
        );
        assert!(message(json!({"Image": 1})).starts_with("invalid JSON: "));
        assert!(message(json!([])).starts_with("invalid JSON: "));
        assert!(
            message(json!({"Image": "a", "HostConfig": {"Memory": "x"}}))
                .starts_with("invalid JSON: ")
        );
    }
}
