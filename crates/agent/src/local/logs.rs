//! Logs of containers.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use types::{ContainerId, Result};

use super::LocalAgent;
use crate::{LogQuery, LogStream, Plan};

/// Batches under way to a slow reader.
const QUEUE: usize = 4;

impl LocalAgent {
    pub(super) async fn read_logs(&self, id: &ContainerId, query: LogQuery) -> Result<LogStream> {
        let LogQuery {
            follow,
            tail,
            since,
            until,
            stdout,
            stderr,
        } = query;
        let wanted = runtime::logs::LogQuery {
            since,
            until,
            tail,
            follow,
        };
        let mut batches = self.runtime.logs(id, self.paths_of(id).log, wanted);
        let (sender, entries) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    batch = batches.recv() => batch,
                    () = sender.closed() => return,
                };
                let Some(batch) = batch else { return };
                let batch = batch.map_err(types::Error::from).map(|mut batch| {
                    if !(stdout && stderr) {
                        batch.retain(|entry| if entry.stderr { stderr } else { stdout });
                    }
                    batch
                });
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
        });
        Ok(LogStream {
            tty: false,
            entries,
        })
    }
}

/// What the log options `labels`, `env` and `tag` add to each line.
pub(super) fn attributes(plan: &Plan) -> BTreeMap<String, String> {
    let options = &plan.host.log_config.config;
    let names = |option: &str| -> Vec<&str> {
        options
            .get(option)
            .map(|text| text.split(',').filter(|name| !name.is_empty()).collect())
            .unwrap_or_default()
    };
    let mut attributes = BTreeMap::new();
    for name in names("labels") {
        if let Some(value) = plan
            .config
            .labels
            .as_ref()
            .and_then(|labels| labels.get(name))
        {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    for name in names("env") {
        let value = plan
            .config
            .env
            .iter()
            .flatten()
            .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        if let Some(value) = value {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        attributes.insert(
            "tag".into(),
            tag.replace("{{.ID}}", plan.id.short())
                .replace("{{.Name}}", &plan.name)
                .replace("{{.FullID}}", plan.id.as_str()),
        );
    }
    attributes
}
