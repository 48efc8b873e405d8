//! Registries: pulling, pushing, checking credentials.

use std::sync::Arc;

use image::registry::{Client, Credentials, Inspection, Options, PullRequest, PushRequest, Report};
use types::{Reference, Result};

use crate::{Engine, Scope};

/// The client of all registries. Its connections are made on first use.
pub(crate) fn client(insecure: &[String]) -> Result<Arc<Client>> {
    let user_agent = format!("kraud/{}", env!("CARGO_PKG_VERSION"));
    Client::new(Options {
        insecure: insecure.to_vec(),
        user_agent,
        ..Options::default()
    })
    .map(Arc::new)
}

impl Engine {
    /// `docker pull`; tells `report` how far it is. `platform` is `os/arch[/variant]`.
    pub async fn image_pull(
        &self,
        scope: &Scope,
        reference: &Reference,
        all_tags: bool,
        platform: Option<&str>,
        credentials: Credentials,
        report: Report,
    ) -> Result<()> {
        let platform = platform
            .filter(|text| !text.is_empty())
            .map(str::parse)
            .transpose()?;
        let request = PullRequest {
            reference: reference.clone(),
            platform,
            all_tags,
            credentials,
        };
        for pulled in self
            .images
            .pull(&self.registries, &scope.namespace, &request, report)
            .await?
        {
            let name = pulled.reference.familiar();
            self.image_event(
                &scope.namespace,
                "pull",
                &name,
                &pulled.reference.familiar_name(),
                None,
            );
        }
        Ok(())
    }

    /// `docker push`; tells `report` how far it is.
    pub async fn image_push(
        &self,
        scope: &Scope,
        reference: &Reference,
        all_tags: bool,
        credentials: Credentials,
        report: Report,
    ) -> Result<()> {
        let request = PushRequest {
            reference: reference.clone(),
            all_tags,
            credentials,
        };
        self.images
            .push(&self.registries, &scope.namespace, &request, report)
            .await?;
        self.image_event(
            &scope.namespace,
            "push",
            &reference.familiar(),
            &reference.familiar_name(),
            None,
        );
        Ok(())
    }

    /// What a registry has under a reference, without fetching it.
    pub async fn distribution_inspect(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Inspection> {
        self.registries.inspect(reference, credentials).await
    }

    /// Checks credentials with a registry: docker's words for success, and an identity token.
    pub async fn registry_login(
        &self,
        credentials: &Credentials,
        server: &str,
    ) -> Result<(String, String)> {
        self.registries.check(credentials, server).await
    }
}
