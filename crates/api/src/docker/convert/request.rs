//! Request bodies that need more than serde.

use serde_json::{Map, Value};
use types::{HostConfig, Result, container::Resources};

use crate::docker::{body, gojson};

/// Fields of a host config that are left out when they are not set, and so cannot be read
/// off an empty one.
const OPTIONAL: [&str; 9] = [
    "Annotations",
    "StorageOpt",
    "Tmpfs",
    "Sysctls",
    "Runtime",
    "Mounts",
    "Init",
    "KernelMemory",
    "KernelMemoryTCP",
];

/// A `HostConfig` by Go's rules. Its limits are flattened into it, which hides them from
/// [`gojson::Go`]; so they are read apart.
pub(crate) fn host_config(value: Value) -> Result<HostConfig> {
    let mut object = match value {
        Value::Null => return Ok(HostConfig::default()),
        Value::Object(object) => object,
        // Fails with the right words.
        other => return body::decode(other),
    };
    gojson::strip_nulls(&mut object);
    let resources: Resources = body::decode(Value::Object(object.clone()))?;
    let limits = fields(&Resources::default());
    let own = fields(&HostConfig::default());
    let rest: Map<String, Value> = object
        .into_iter()
        .filter_map(|(key, value)| {
            if limits.iter().any(|limit| limit.eq_ignore_ascii_case(&key)) {
                return None;
            }
            let proper = own
                .iter()
                .map(String::as_str)
                .chain(OPTIONAL)
                .find(|name| name.eq_ignore_ascii_case(&key))?;
            Some((proper.to_owned(), value))
        })
        .filter(|(key, _)| !key.starts_with("KernelMemory"))
        .collect();
    let mut host: HostConfig = body::decode(Value::Object(rest))?;
    host.resources = resources;
    Ok(host)
}

fn fields(sample: &impl serde::Serialize) -> Vec<String> {
    match serde_json::to_value(sample) {
        Ok(Value::Object(object)) => object.into_iter().map(|(key, _)| key).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_and_cases() {
        let host = host_config(json!({
            "Memory": 5, "memoryswap": 6, "Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": null}],
            "NetworkMode": null, "networkmode": "host", "PortBindings": {"80/tcp": null}, "MaskedPaths": [],
            "KernelMemory": 4, "Tmpfs": {"/x": null}, "RestartPolicy": {"Name": null}, "Unknown": {},
            "Mounts": [{"Type": "bind", "BindOptions": null}], "PidsLimit": null, "Init": true,
        }))
        .unwrap();
        assert_eq!(
            (
                host.resources.memory,
                host.resources.memory_swap,
                host.resources.kernel_memory
            ),
            (5, 6, 4)
        );
        assert_eq!(host.resources.devices.unwrap()[0].path_on_host, "/dev/null");
        assert_eq!(host.network_mode, "host");
        assert_eq!(host.port_bindings.unwrap().len(), 1);
        assert_eq!(host.masked_paths, Some(Vec::new()));
        assert_eq!(host.tmpfs.unwrap()["/x"], "");
        assert_eq!(host.init, Some(true));
        assert_eq!(host_config(Value::Null).unwrap(), HostConfig::default());
        assert!(host_config(json!([])).is_err());
    }
}
