//! Logs of containers.

use std::collections::BTreeMap;

use types::{ContainerId, Error, Result};

use super::LocalAgent;
use crate::{LogQuery, LogStream, Plan};

impl LocalAgent {
    pub(super) async fn read_logs(&self, id: &ContainerId, query: LogQuery) -> Result<LogStream> {
        let _ = query;
        Err(Error::not_implemented(format!("logs of {id}")))
    }
}

/// What the log options `labels`, `env` and `tag` add to each line.
pub(super) fn attributes(plan: &Plan) -> BTreeMap<String, String> {
    let options = &plan.host.log_config.config;
    let names = |option: &str| -> Vec<&str> {
        options.get(option).map(|text| text.split(',').filter(|name| !name.is_empty()).collect()).unwrap_or_default()
    };
    let mut attributes = BTreeMap::new();
    for name in names("labels") {
        if let Some(value) = plan.config.labels.as_ref().and_then(|labels| labels.get(name)) {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    for name in names("env") {
        let value = plan.config.env.iter().flatten().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        if let Some(value) = value {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        attributes.insert("tag".into(), tag.replace("{{.ID}}", plan.id.short()).replace("{{.Name}}", &plan.name).replace("{{.FullID}}", plan.id.as_str()));
    }
    attributes
}
