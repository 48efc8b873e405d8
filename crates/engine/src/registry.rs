//! Registries: pulling, pushing, checking credentials.

use agent::images::{Credentials, Inspection, Known, PullRequest};
use types::{Reference, Result};

use crate::{Engine, Scope, library::Report, tenants::policy};

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
        policy::registry(scope, reference.domain())?;
        let request = PullRequest {
            reference: reference.clone(),
            platform: platform.unwrap_or_default().to_owned(),
            all_tags,
            credentials: reach(scope, credentials),
            known: Known::default(),
        };
        for pulled in self.images.pull(&scope.namespace, request, report).await? {
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
        policy::registry(scope, reference.domain())?;
        self.images
            .push(
                &scope.namespace,
                reference,
                all_tags,
                reach(scope, credentials),
                report,
            )
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
        scope: &Scope,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Inspection> {
        policy::registry(scope, reference.domain())?;
        let credentials = reach(scope, credentials.clone());
        self.images.registry_inspect(reference, &credentials).await
    }

    /// Checks credentials with a registry: docker's words for success, and an identity token.
    pub async fn registry_login(
        &self,
        scope: &Scope,
        credentials: &Credentials,
        server: &str,
    ) -> Result<(String, String)> {
        let host = server
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap_or_default();
        // Without one it is Docker Hub.
        if !host.is_empty() {
            policy::registry(scope, host)?;
        }
        let credentials = reach(scope, credentials.clone());
        self.images.registry_check(&credentials, server).await
    }
}

/// Tenants reach registries of the internet only, whatever names and redirections lead to.
fn reach(scope: &Scope, credentials: Credentials) -> Credentials {
    Credentials {
        public_only: scope.is_tenant(),
        ..credentials
    }
}
