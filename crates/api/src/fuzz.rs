//! Entry point for fuzzing the JSON bodies: any bytes are decoded or refused, never a panic.
//!
//! Used by the target `body` in `fuzz/` and by the bounded mutation test of this crate.

use crate::docker;

/// Decodes `data` as every kind of body that a client can send.
pub fn body(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        docker::decode_all(&value);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = types::Filters::parse(Some(text));
        let _ = text.parse::<types::Reference>();
        let _ = text.parse::<types::port::Port>();
        let _ = types::size::parse(text);
        let _ = engine::moment(text, types::Time::now());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const SEED: &str = r#"{"Hostname":"h","Env":["A=1"],"Cmd":["sh","-c","x"],"Entrypoint":"e","Image":"busybox",
        "ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"Labels":{"a":"b"},"StopTimeout":5,
        "Healthcheck":{"Test":["CMD","true"],"Interval":1000000000},
        "HostConfig":{"Binds":["/a:/b:ro"],"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080-8090"}]},
        "Memory":67108864,"NanoCpus":500000000,"RestartPolicy":{"Name":"always"},"Mounts":[{"Type":"tmpfs","Target":"/t",
        "TmpfsOptions":{"SizeBytes":1,"Mode":511}}],"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"PidsLimit":null},
        "NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{"IPv4Address":"172.17.0.9"}}}}}"#;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn changed_bodies_are_decoded_or_refused(
            edits in prop::collection::vec((0usize..SEED.len(), any::<u8>(), 0u8..4), 1..8)
        ) {
            let mut bytes = SEED.as_bytes().to_vec();
            for (at, byte, what) in edits {
                let at = at % bytes.len().max(1);
                match what {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 => drop(bytes.remove(at)),
                    // A number where something else is wanted, and the other way round.
                    _ => bytes[at] = b"0123456789-\"{}[]ntf"[usize::from(byte) % 19],
                }
            }
            super::body(&bytes);
        }
    }
}
