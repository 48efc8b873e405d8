//! Files of containers: cp, export, diff.

use agent::{PathStat, Reader};
use types::{Error, Result};

use crate::{Engine, Scope, view::Change};

impl Engine {
    /// Facts of a path inside a container.
    pub async fn container_archive_stat(
        &self,
        scope: &Scope,
        name: &str,
        path: &str,
    ) -> Result<PathStat> {
        let container = self.container(scope, name)?;
        self.agent
            .archive_stat(&self.plan(&container.record())?, path)
            .await
            .map_err(|error| absent(error, name, path))
    }

    /// A path inside a container as a tar.
    pub async fn container_archive_get(
        &self,
        scope: &Scope,
        name: &str,
        path: &str,
    ) -> Result<(PathStat, Reader)> {
        let container = self.container(scope, name)?;
        let archive = self
            .agent
            .archive_get(&self.plan(&container.record())?, path)
            .await
            .map_err(|error| absent(error, name, path))?;
        self.container_event(&container, "archive-path", &[]);
        Ok(archive)
    }

    /// Unpacks a tar into a directory inside a container.
    pub async fn container_archive_put(
        &self,
        scope: &Scope,
        name: &str,
        path: &str,
        tar: Reader,
        no_overwrite_dir_non_dir: bool,
        copy_owner: bool,
    ) -> Result<()> {
        let container = self.container(scope, name)?;
        self.agent
            .archive_put(
                &self.plan(&container.record())?,
                path,
                tar,
                no_overwrite_dir_non_dir,
                copy_owner,
            )
            .await
            .map_err(|error| absent(error, name, path))?;
        self.container_event(&container, "extract-to-dir", &[]);
        Ok(())
    }

    /// A container's root file system as a tar.
    pub async fn container_export(&self, scope: &Scope, name: &str) -> Result<Reader> {
        let container = self.container(scope, name)?;
        let tar = self.agent.export(&self.plan(&container.record())?).await?;
        self.container_event(&container, "export", &[]);
        Ok(tar)
    }

    /// What a container changed of its image.
    pub async fn container_changes(&self, scope: &Scope, name: &str) -> Result<Vec<Change>> {
        let container = self.container(scope, name)?;
        let changes = self
            .agent
            .changes(&container.id, &container.record().layers)
            .await?;
        Ok(changes
            .into_iter()
            .map(|change| Change {
                path: change.path,
                kind: change.kind,
            })
            .collect())
    }
}

/// docker's words for a path that is not there.
fn absent(error: Error, container: &str, path: &str) -> Error {
    if error.kind == types::Kind::NotFound {
        return Error::not_found(format!(
            "Could not find the file {path} in container {container}"
        ));
    }
    error
}
