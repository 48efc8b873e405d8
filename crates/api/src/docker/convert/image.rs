//! `ImageInspect`, `ImageSummary` and their kin.

use std::collections::BTreeMap;

use catalog::{HistoryRow, Image};
use engine::{
    ImageView,
    view::{ImageRemoval, ImageUsage},
};
use serde_json::{Map, Value, json};
use types::{Config, Reference, Time};

use crate::docker::{
    version::ApiVersion,
    wire::{
        GraphDriver,
        image::{HistoryItem, ImageDeleted, ImageInspect, ImageSummary, Metadata, RootFs},
    },
};

/// Before this version `VirtualSize` repeated `Size`.
const NO_VIRTUAL_SIZE: ApiVersion = ApiVersion::new(1, 44);
/// Before this version an image told what container it was committed from.
const NO_CONTAINER: ApiVersion = ApiVersion::new(1, 45);
/// Since this version an image without a tag has no tags, rather than one called `<none>`.
const NO_NONE: ApiVersion = ApiVersion::new(1, 43);
/// Since this version an image's config has only the fields that an image can have.
const LEAN_CONFIG: ApiVersion = ApiVersion::new(1, 50);

fn familiar(references: &[Reference]) -> Vec<String> {
    references.iter().map(Reference::familiar).collect()
}

/// `ImageInspect`.
pub(crate) fn inspect(view: &ImageView, version: ApiVersion) -> ImageInspect {
    let (image, config) = (&view.image, &view.image.config);
    ImageInspect {
        id: image.id.to_string(),
        repo_tags: familiar(&view.references.tags),
        repo_digests: familiar(&view.references.digests),
        parent: image
            .parent
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        comment: last_comment(image),
        created: config
            .created
            .map(|time| time.to_string())
            .unwrap_or_default(),
        container: (version < NO_CONTAINER).then(|| config.container.clone()),
        container_config: (version < NO_CONTAINER)
            .then(|| config.container_config.clone().unwrap_or_default()),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        config: image_config(config.config.as_ref(), version),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size: image.size(),
        virtual_size: (version < NO_VIRTUAL_SIZE).then(|| image.size()),
        graph_driver: GraphDriver {
            // The schema wants an object; its layers are nobody's business.
            data: BTreeMap::new(),
            name: "overlay2".into(),
        },
        root_fs: RootFs {
            kind: "layers",
            layers: image.diff_ids().iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata {
            last_tag_time: image.last_tagged.to_string(),
        },
    }
}

fn last_comment(image: &Image) -> String {
    let config = &image.config;
    if config.comment.is_empty() {
        config
            .history
            .last()
            .map(|entry| entry.comment.clone())
            .unwrap_or_default()
    } else {
        config.comment.clone()
    }
}

/// An image's config with the fields that the version has: the image specification's, of
/// which some are always shown, and before 1.50 those of a container too.
fn image_config(config: Option<&Config>, version: ApiVersion) -> Value {
    let config = config.cloned().unwrap_or_default();
    let Ok(Value::Object(all)) = serde_json::to_value(&config) else {
        return Value::Null;
    };
    let mut shown = Map::new();
    if version < LEAN_CONFIG {
        for (name, value) in [
            ("Hostname", json!("")),
            ("Domainname", json!("")),
            ("AttachStdin", json!(false)),
            ("AttachStdout", json!(false)),
            ("AttachStderr", json!(false)),
            ("Tty", json!(false)),
            ("OpenStdin", json!(false)),
            ("StdinOnce", json!(false)),
            ("Image", json!("")),
        ] {
            shown.insert(name.into(), value);
        }
    }
    const ALWAYS: [&str; 8] = [
        "User",
        "Env",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Entrypoint",
        "OnBuild",
        "Labels",
    ];
    const WHERE_SET: [&str; 5] = [
        "ExposedPorts",
        "ArgsEscaped",
        "Healthcheck",
        "StopSignal",
        "Shell",
    ];
    for (name, value) in all {
        let set = !matches!(&value, Value::Null) && value != json!({});
        if ALWAYS.contains(&name.as_str()) || (WHERE_SET.contains(&name.as_str()) && set) {
            shown.insert(name, value);
        }
    }
    Value::Object(shown)
}

/// `ImageSummary`. Counts are -1 where they were not asked for.
pub(crate) fn summary(
    view: &ImageView,
    containers: i64,
    shared_size: i64,
    version: ApiVersion,
) -> ImageSummary {
    row(
        &view.image,
        familiar(&view.references.tags),
        familiar(&view.references.digests),
        containers,
        shared_size,
        version,
    )
}

/// `ImageSummary` for `docker system df`.
pub(crate) fn usage(usage: &ImageUsage, version: ApiVersion) -> ImageSummary {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let shared = i64::try_from(usage.shared_size).unwrap_or(i64::MAX);
    row(
        &usage.image,
        usage.references.clone(),
        usage.repo_digests.clone(),
        number(usage.containers),
        shared,
        version,
    )
}

fn row(
    image: &Image,
    mut repo_tags: Vec<String>,
    mut repo_digests: Vec<String>,
    containers: i64,
    shared_size: i64,
    version: ApiVersion,
) -> ImageSummary {
    if version < NO_NONE && repo_tags.is_empty() && repo_digests.is_empty() {
        repo_tags.push("<none>:<none>".into());
        repo_digests.push("<none>@<none>".into());
    }
    ImageSummary {
        containers,
        created: image.config.created.map_or(0, Time::unix_seconds),
        id: image.id.to_string(),
        labels: labels(image),
        parent_id: image
            .parent
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        repo_digests,
        repo_tags,
        shared_size,
        size: image.size(),
        virtual_size: (version < NO_VIRTUAL_SIZE).then(|| image.size()),
    }
}

fn labels(image: &Image) -> Option<BTreeMap<String, String>> {
    image
        .config
        .config
        .as_ref()
        .and_then(|config| config.labels.clone())
}

/// One row of `docker history`.
pub(crate) fn history(row: HistoryRow) -> HistoryItem {
    HistoryItem {
        comment: row.comment,
        created: row.created.unix_seconds(),
        created_by: row.created_by,
        id: row
            .id
            .map_or_else(|| "<missing>".into(), |id| id.to_string()),
        size: row.size,
        tags: Some(row.tags).filter(|tags| !tags.is_empty()),
    }
}

/// What a removal did.
pub(crate) fn removal(removal: ImageRemoval) -> ImageDeleted {
    match removal {
        ImageRemoval::Untagged(reference) => ImageDeleted::Untagged(reference),
        ImageRemoval::Deleted(id) => ImageDeleted::Deleted(id.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_by_version() {
        let config = Config {
            cmd: Some(vec!["sh".into()]),
            stop_signal: Some("SIGINT".into()),
            tty: true,
            ..Config::default()
        };
        let new = image_config(Some(&config), ApiVersion::MAX);
        assert_eq!(
            new,
            json!({"User": "", "Env": null, "Cmd": ["sh"], "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null, "StopSignal": "SIGINT"})
        );
        let old = image_config(None, ApiVersion::new(1, 49));
        assert_eq!(old["Tty"], json!(false));
        assert_eq!(old["Hostname"], json!(""));
        assert!(old.get("StopSignal").is_none());
    }
}
