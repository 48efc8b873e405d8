//! `docker commit`: an image from a container.

use agent::MadeLayer;
use types::{
    Config, Digest, Reference, Result, Time,
    image::{HistoryEntry, NewImage},
    state::Status,
};

use super::Container;
use crate::{Engine, Scope, request::CommitRequest};

impl Engine {
    /// Makes an image of a container's files and configuration; returns its id.
    pub async fn container_commit(&self, scope: &Scope, request: CommitRequest) -> Result<Digest> {
        let container = self.container(scope, &request.container)?;
        let reference = reference(&request)?;
        let record = container.record();
        let mut config = request.config.clone().unwrap_or_default();
        crate::changes::apply(&mut config, &request.changes)?;
        let config = overlay(&record.config, config);

        let parent = self
            .catalog
            .get(&container.namespace, &record.image)
            .await?;
        let made = self.committed_layer(&container, request.pause).await?;

        let mut image = parent.config.clone();
        let created = Time::now();
        image.created = Some(created);
        image.author.clone_from(&request.author);
        image.comment.clone_from(&request.comment);
        image.container = container.id.to_string();
        image.config = Some(config.clone());
        image.container_config = Some(record.config.clone());
        image.docker_version = env!("CARGO_PKG_VERSION").into();
        image.rootfs.diff_ids.push(made.layer.diff_id.clone());
        image.history.push(HistoryEntry {
            created: Some(created),
            author: request.author,
            created_by: record.config.cmd.clone().unwrap_or_default().join(" "),
            comment: request.comment,
            empty_layer: false,
        });
        let mut layers = parent.layers.clone();
        layers.push(made.layer.clone());
        let new = image.to_text().map(|config| NewImage {
            config,
            layers,
            parent: Some(parent.id.clone()),
            references: reference.iter().cloned().collect(),
            ..NewImage::default()
        });
        let made = self
            .images
            .record_made(&container.namespace, made, new)
            .await?;
        let name = reference.map_or_else(String::new, |reference| reference.familiar());
        self.container_event(
            &container,
            "commit",
            &[
                ("comment", image.comment),
                ("imageID", made.id.to_string()),
                ("imageRef", name),
            ],
        );
        Ok(made.id.clone())
    }
}

impl Engine {
    /// The container's writable layer, taken while its processes are held where they are
    /// wanted so. Nobody asked for a pause: it is not recorded, and recovery ends one that
    /// a crash left behind.
    async fn committed_layer(&self, container: &Container, hold: bool) -> Result<MadeLayer> {
        let _op = container.op.lock().await;
        let hold = hold && container.status() == Status::Running;
        if hold {
            self.agent.set_paused(&container.id, true).await?;
        }
        let layer = self.agent.commit_layer(&container.id).await;
        if hold {
            self.agent.set_paused(&container.id, false).await?;
        }
        layer
    }
}

fn reference(request: &CommitRequest) -> Result<Option<Reference>> {
    if request.repo.is_empty() {
        return Ok(None);
    }
    let reference: Reference = request.repo.parse()?;
    let reference = if request.tag.is_empty() {
        reference.or_latest()
    } else {
        reference.with_tag(&request.tag)?
    };
    Ok(Some(reference))
}

/// What the user gave, over what the container was made with.
fn overlay(container: &Config, user: Config) -> Config {
    let mut config = container.clone();
    let env = user.env;
    let labels = user.labels;
    let (ports, volumes) = (user.exposed_ports, user.volumes);
    take(&mut config.user, user.user);
    take(&mut config.cmd, user.cmd);
    take(&mut config.entrypoint, user.entrypoint);
    take(&mut config.working_dir, user.working_dir);
    take(&mut config.stop_signal, user.stop_signal);
    take(&mut config.stop_timeout, user.stop_timeout);
    take(&mut config.healthcheck, user.healthcheck);
    take(&mut config.on_build, user.on_build);
    take(&mut config.shell, user.shell);
    for variable in env.into_iter().flatten() {
        let list = config.env.get_or_insert_default();
        list.retain(|other| other.split('=').next() != variable.split('=').next());
        list.push(variable);
    }
    config
        .labels
        .get_or_insert_default()
        .extend(labels.into_iter().flatten());
    if let Some(ports) = ports {
        config.exposed_ports.get_or_insert_default().extend(ports);
    }
    if let Some(volumes) = volumes {
        config.volumes.get_or_insert_default().extend(volumes);
    }
    config
}

/// Takes over what is set.
fn take<T: Default + PartialEq>(own: &mut T, given: T) {
    if given != T::default() {
        *own = given;
    }
}
