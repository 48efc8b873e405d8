//! The images of a compose project.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde::Deserialize;

use crate::exit::{Failure, Outcome};

/// A project as `docker compose config` resolves it.
#[derive(Debug, Deserialize)]
pub(crate) struct Project {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) services: BTreeMap<String, Service>,
}

/// A service of a project.
#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) image: Option<String>,
    pub(crate) build: Option<serde_json::Value>,
}

impl Project {
    /// The project in the current directory, or of the files that are named.
    pub(crate) fn load(files: &[impl AsRef<Path>]) -> Outcome<Self> {
        let mut command = Command::new("docker");
        command.arg("compose");
        for file in files {
            command.arg("--file").arg(file.as_ref());
        }
        command.args(["config", "--format", "json"]);
        let output = command.output().map_err(|error| {
            Failure::usage(format!(
                "name an image to push: the project here cannot be looked at without docker compose ({error})"
            ))
        })?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let words = words.trim();
            return Err(Failure::usage(match words.contains("is not a docker command") || words.contains("unknown flag") {
                true => "name an image to push: the project here cannot be looked at, as docker has no compose plugin; install docker-compose-plugin".to_owned(),
                false => format!("name an image to push, or fix the project here: {words}"),
            }));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            Failure::usage(format!(
                "what docker compose says of the project is not understood: {error}"
            ))
        })
    }

    /// Names of the images that its services use, each once.
    pub(crate) fn images(&self) -> Vec<String> {
        let mut images: Vec<String> = self
            .services
            .iter()
            .filter_map(|(name, service)| match (&service.image, &service.build) {
                (Some(image), _) => Some(image.clone()),
                // What compose calls what it builds.
                (None, Some(_)) => Some(format!("{}-{name}", self.name)),
                (None, None) => None,
            })
            .collect();
        images.sort();
        images.dedup();
        images
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_services() {
        let project: Project = serde_json::from_str(
            r#"{"name":"shop","services":{
                "web":{"build":{"context":"."}},
                "db":{"image":"postgres:16"},
                "api":{"image":"api","build":{"context":"."}},
                "other":{"image":"postgres:16"}},"volumes":{}}"#,
        )
        .unwrap();
        assert_eq!(project.images(), ["api", "postgres:16", "shop-web"]);
    }
}
