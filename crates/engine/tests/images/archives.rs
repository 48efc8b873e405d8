//! Archives as docker and others write them.

use super::*;

/// A docker archive as docker before 25 wrote it.
pub(super) fn legacy_archive(layers: &[Vec<u8>], tags: &[&str]) -> Vec<u8> {
    let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = config(&ids, "legacy");
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let mut tar = Tar::default().file(&config_name, config.as_bytes());
    let mut names = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        tar = tar
            .dir(&format!("{index}/"))
            .file(&format!("{index}/VERSION"), b"1.0")
            .file(&format!("{index}/json"), b"{}");
        // A layer that was there before is a link to it.
        match layers[..index].iter().position(|before| before == layer) {
            Some(before) => {
                tar = tar.symlink(
                    &format!("{index}/layer.tar"),
                    &format!("../{before}/layer.tar"),
                )
            }
            None => tar = tar.file(&format!("{index}/layer.tar"), layer),
        }
        names.push(format!("{index}/layer.tar"));
    }
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    tar.file("manifest.json", manifest.to_string().as_bytes())
        .file("repositories", b"{}")
        .end()
}

/// An OCI layout with compressed layers, and manifests for other platforms.
pub(super) fn oci_archive(layers: &[Vec<u8>], zstd: bool) -> Vec<u8> {
    let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = config(&ids, "oci");
    let mut blobs: Vec<Vec<u8>> = vec![config.clone().into_bytes()];
    let mut entry = |kind: &str, blob: Vec<u8>| {
        let entry = json!({"mediaType": kind, "digest": Digest::of(&blob), "size": blob.len()});
        blobs.push(blob);
        entry
    };
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|layer| {
            if zstd {
                entry(
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                    zstd::encode_all(&layer[..], 1).unwrap(),
                )
            } else {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(layer).unwrap();
                entry(
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    gzip.finish().unwrap(),
                )
            }
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": descriptors});
    let mut mine = entry(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().into_bytes(),
    );
    let host = Platform::host();
    mine["platform"] = json!({"os": host.os, "architecture": host.architecture});
    let mut other = mine.clone();
    other["digest"] = json!(Digest::of(b"not in the archive"));
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let mut attestation = entry("application/vnd.oci.image.manifest.v1+json", b"{}".to_vec());
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let inner = json!({"schemaVersion": 2, "manifests": [other, mine, attestation]});
    let mut top = entry(
        "application/vnd.oci.image.index.v1+json",
        inner.to_string().into_bytes(),
    );
    top["annotations"] = json!({"io.containerd.image.name": "docker.io/library/oci:1"});
    let mut tar = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    tar = tar.file(
        "index.json",
        json!({"schemaVersion": 2, "manifests": [top]})
            .to_string()
            .as_bytes(),
    );
    for blob in &blobs {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.end()
}
