//! A compose project, as docker's own plugin resolves it.

pub(crate) mod files;
mod ignore;
mod own;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::exit::{Failure, Outcome};

/// A project.
#[derive(Debug, Deserialize)]
pub(crate) struct Project {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) services: BTreeMap<String, Service>,
    #[serde(default)]
    configs: BTreeMap<String, Content>,
    #[serde(default)]
    secrets: BTreeMap<String, Content>,
    /// Where it is; not in what the plugin says.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

/// A service of a project.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Service {
    pub(crate) image: Option<String>,
    pub(crate) build: Option<serde_json::Value>,
    #[serde(default)]
    volumes: Vec<Mount>,
    #[serde(default)]
    configs: Vec<Use>,
    #[serde(default)]
    secrets: Vec<Use>,
    deploy: Option<Deploy>,
    scale: Option<u32>,
    #[serde(default)]
    depends_on: BTreeMap<String, Need>,
    #[serde(default)]
    post_start: Vec<serde_json::Value>,
    #[serde(default)]
    pre_stop: Vec<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Need {
    #[serde(default)]
    condition: Condition,
}

/// What a service waits for that needs another one (compose specification, `depends_on`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Condition {
    #[default]
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

#[derive(Debug, Default, Deserialize)]
struct Deploy {
    replicas: Option<u32>,
    update_config: Option<UpdateConfig>,
}

#[derive(Debug, Default, Deserialize)]
struct UpdateConfig {
    order: Option<Order>,
}

/// Which comes first when a container is replaced (compose specification,
/// `deploy.update_config.order`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// The new one starts.
    #[default]
    StartFirst,
    /// The old one stops.
    StopFirst,
}

#[derive(Debug, Deserialize)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    source: String,
}

#[derive(Debug, Deserialize)]
struct Use {
    source: String,
}

/// A config or a secret.
#[derive(Debug, Deserialize)]
struct Content {
    file: Option<String>,
    /// Given in the project itself.
    content: Option<String>,
    environment: Option<String>,
}

/// The plugin with the files that are named.
pub(crate) fn compose(files: &[PathBuf]) -> Command {
    let mut command = Command::new("docker");
    command.arg("compose");
    for file in files {
        command.arg("--file").arg(file);
    }
    command
}

/// What the plugin makes of a project; `None` without a plugin.
fn resolve(files: &[PathBuf]) -> Outcome<Option<serde_json::Value>> {
    let ran = compose(files).args(["config", "--format", "json"]).output();
    let output = match ran {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| Failure::io("running docker compose", error))?,
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let no_plugin = [
            "is not a docker command",
            "unknown docker command",
            "unknown flag",
            "unknown shorthand flag",
        ];
        if no_plugin.iter().any(|sign| words.contains(sign)) {
            return Ok(None);
        }
        return Err(Failure::usage(format!(
            "there is no project here that docker compose understands: {}",
            words.trim()
        )));
    }
    serde_json::from_slice(&output.stdout)
        .map(Some)
        .map_err(|error| {
            Failure::usage(format!(
                "what docker compose says of the project is not understood: {error}"
            ))
        })
}

/// Fails without the plugin, with what to do.
pub(crate) fn need_plugin() -> Outcome {
    let ran = compose(&[]).arg("version").output();
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Failure::usage(
            "this needs docker with its compose plugin: install docker-compose-plugin (kra push works without)",
        )),
    }
}

impl Project {
    /// The project in the current folder, or of the files that are named. Without docker's plugin
    /// the common part of compose is understood.
    pub(crate) fn load(files: &[PathBuf]) -> Outcome<Self> {
        let resolved = match resolve(files)? {
            Some(resolved) => resolved,
            None => own::read(files)?,
        };
        let mut project: Self = serde_json::from_value(resolved)
            .map_err(|error| Failure::usage(format!("the project is not understood: {error}")))?;
        let folder = files.first().and_then(|file| file.parent());
        project.folder = folder
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .canonicalize()
            .map_err(|error| Failure::io("finding the project's folder", error))?;
        Ok(project)
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

    /// Its services, each after those that it needs.
    pub(crate) fn in_order(&self) -> Vec<(&str, &Service)> {
        fn visit<'a>(project: &'a Project, name: &str, order: &mut Order<'a>) {
            let Some((name, service)) = project.services.get_key_value(name) else {
                return;
            };
            if order.seen.insert(name) {
                for needed in service.depends_on.keys() {
                    visit(project, needed, order);
                }
                order.services.push((name, service));
            }
        }
        #[derive(Default)]
        struct Order<'a> {
            seen: BTreeSet<&'a str>,
            services: Vec<(&'a str, &'a Service)>,
        }
        let mut order = Order::default();
        for name in self.services.keys() {
            visit(self, name, &mut order);
        }
        order.services
    }

    /// The services that one needs, as far as they are part of the project as it is brought up: of
    /// others the profile is not wanted.
    pub(crate) fn needs(&self, service: &Service) -> Vec<(String, Condition)> {
        let needs = service.depends_on.iter();
        needs
            .filter(|(name, _)| self.services.contains_key(*name))
            .map(|(name, need)| (name.clone(), need.condition))
            .collect()
    }

    /// Whether docker compose does more to a service's containers than to make and to start them:
    /// it runs hooks, or writes configs and secrets into them (some versions do when they make
    /// them, others when they start them).
    pub(crate) fn is_filled_at_start(&self, service: &Service) -> bool {
        let written = |uses: &[Use], known: &BTreeMap<String, Content>| {
            uses.iter()
                .filter_map(|one| known.get(&one.source))
                .any(|content| content.content.is_some() || content.environment.is_some())
        };
        !service.post_start.is_empty()
            || written(&service.configs, &self.configs)
            || written(&service.secrets, &self.secrets)
    }

    /// Paths of this machine that its services mount, each once: binds, and configs and secrets
    /// that are files.
    pub(crate) fn local_paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for service in self.services.values() {
            let binds = service.volumes.iter().filter(|mount| mount.kind == "bind");
            paths.extend(binds.map(|mount| PathBuf::from(&mount.source)));
            for (uses, known) in [
                (&service.configs, &self.configs),
                (&service.secrets, &self.secrets),
            ] {
                let named = uses.iter().filter_map(|one| known.get(&one.source));
                paths.extend(named.filter_map(|content| content.file.as_ref().map(PathBuf::from)));
            }
        }
        paths.sort();
        paths.dedup();
        paths
    }
}

impl Service {
    /// How many containers it shall have.
    pub(crate) fn replicas(&self) -> u32 {
        let deployed = self.deploy.as_ref().and_then(|deploy| deploy.replicas);
        self.scale.or(deployed).unwrap_or(1)
    }

    /// What comes first when one of them is replaced.
    pub(crate) fn order(&self) -> Order {
        let deploy = self.deploy.as_ref();
        let update = deploy.and_then(|deploy| deploy.update_config.as_ref());
        update.and_then(|update| update.order).unwrap_or_default()
    }

    /// Whether something is to run in its containers before they stop.
    pub(crate) fn has_last_words(&self) -> bool {
        !self.pre_stop.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_project_uses() {
        let project: Project = serde_json::from_str(
            r#"{"name":"shop","services":{
                "web":{"build":{"context":"."},"deploy":{"replicas":3,"update_config":{"order":"stop-first"}},"depends_on":{"other":{"condition":"service_completed_successfully"},"debug":{"required":false}},
                    "volumes":[{"type":"bind","source":"/p/nginx.conf","target":"/x"},{"type":"volume","source":"data","target":"/d"}],
                    "secrets":[{"source":"key","target":"/run/secrets/key"}]},
                "db":{"image":"postgres:16","configs":[{"source":"pg"}]},
                "api":{"image":"api","build":{"context":"."},"scale":2,
                    "depends_on":{"web":{"condition":"service_started"}},"configs":[{"source":"inline"}]},
                "other":{"image":"postgres:16","volumes":[{"type":"bind","source":"/p/nginx.conf"}]}},
                "configs":{"pg":{"name":"shop_pg","file":"/p/pg.conf"},"unused":{"file":"/p/no"},"inline":{"content":"x"}},
                "secrets":{"key":{"file":"/p/key"}},"volumes":{"data":{}}}"#,
        )
        .unwrap();
        assert_eq!(project.images(), ["api", "postgres:16", "shop-web"]);
        let paths: Vec<_> = project
            .local_paths()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(paths, ["/p/key", "/p/nginx.conf", "/p/pg.conf"]);
        assert_eq!(project.services["web"].replicas(), 3);
        assert_eq!(project.services["api"].replicas(), 2);
        assert_eq!(project.services["db"].replicas(), 1);
        let order: Vec<&str> = project.in_order().iter().map(|(name, _)| *name).collect();
        assert_eq!(order, ["other", "web", "api", "db"]);
        let needs = project.needs(&project.services["web"]);
        assert_eq!(needs, [("other".to_owned(), Condition::Completed)]);
        assert_eq!(project.services["web"].order(), Order::StopFirst);
        assert_eq!(project.services["api"].order(), Order::StartFirst);
        assert!(project.is_filled_at_start(&project.services["api"]));
        assert!(!project.is_filled_at_start(&project.services["web"]));
    }
}
