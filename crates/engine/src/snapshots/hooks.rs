//! Commands that containers run around a snapshot of their volumes: to flush a database, say.
//!
//! A container asks for them with the labels `kr.snapshot.pre` and `kr.snapshot.post`; the value
//! is a command line for its `/bin/sh`.

use std::{sync::Arc, time::Duration};

use types::{Error, Result};

use crate::{Engine, containers::Container};

const PRE: &str = "kr.snapshot.pre";
const POST: &str = "kr.snapshot.post";
/// How long such a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Engine {
    /// Runs the commands before a snapshot. When one fails there is no snapshot, and those that
    /// did run are followed by their counterparts.
    pub(super) async fn before_snapshot(&self, users: &[Arc<Container>]) -> Result<()> {
        for (at, user) in users.iter().enumerate() {
            if let Err(error) = self.hook(user, PRE).await {
                self.after_snapshot(&users[..=at]).await;
                return Err(error.context("no snapshot was taken"));
            }
        }
        Ok(())
    }

    /// Runs the commands after a snapshot, whatever became of it.
    pub(super) async fn after_snapshot(&self, users: &[Arc<Container>]) {
        for user in users {
            if let Err(error) = self.hook(user, POST).await {
                tracing::warn!(container = %user.record().name, %error, "the command after a snapshot failed");
            }
        }
    }

    async fn hook(&self, user: &Container, label: &str) -> Result<()> {
        let record = user.record();
        let command = record
            .config
            .labels
            .as_ref()
            .and_then(|labels| labels.get(label));
        let Some(command) = command.filter(|command| !command.is_empty()) else {
            return Ok(());
        };
        let line = vec!["/bin/sh".to_owned(), "-c".to_owned(), command.clone()];
        match self.probe(user, line, PATIENCE).await {
            Ok((0, _)) => Ok(()),
            Ok((code, output)) => Err(Error::conflict(format!(
                "the command of label {label} in container {} ended with code {code}: {}",
                record.name,
                output.trim()
            ))),
            Err(error) => Err(error.context(format_args!(
                "the command of label {label} in container {}",
                record.name
            ))),
        }
    }
}
