//! Tenants, their tokens and certificates: what the crate `identity` keeps, and what a tenant is
//! besides.

pub(crate) mod policy;
pub(crate) mod quota;

use identity::{AuditFilter, Identities, TenantRecord};
use types::{
    Error, Filters, Namespace, Result, Role, TokenId,
    native::{
        AuditEntry, Authority, Certificate, CertificateCreate, Tenant, TenantCreated, Token,
        TokenCreate, TokenCreated, Whoami,
    },
    volume::Class,
};

use crate::{Engine, Scope, request::RemoveRequest};

impl Engine {
    /// Who may call, for whoever lets callers in.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Writes down what somebody did.
    pub fn note(&self, entry: AuditEntry) {
        if let Some(audit) = &self.audit {
            audit.add(entry);
        }
    }

    /// What was done, the oldest first.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEntry>> {
        let Some(audit) = self.audit.clone() else {
            return Ok(Vec::new());
        };
        tokio::task::spawn_blocking(move || audit.read(&filter))
            .await
            .map_err(|error| Error::wrap("reading the audit log", error))?
    }

    /// Who the caller is.
    pub fn whoami(&self, scope: &Scope) -> Whoami {
        let caller = &scope.caller;
        Whoami {
            namespace: scope.namespace.clone(),
            role: caller.role,
            token: caller.token.clone(),
            expires: caller.expires,
            by: caller.by.as_str().to_owned(),
        }
    }

    /// What to trust this server by, as far as its certificates are its own.
    pub fn authority(&self) -> Result<Authority> {
        let (fingerprint, expires) = self.identities.authority_fingerprint()?;
        Ok(Authority {
            fingerprint,
            authorities: self.authorities(),
            expires,
        })
    }

    fn authorities(&self) -> String {
        let own = self.settings.authorities.clone();
        own.unwrap_or_else(|| self.identities.authorities_pem())
    }

    /// Makes another authority, which signs from now on.
    pub async fn authority_rotate(&self) -> Result<Authority> {
        self.identities
            .authority_rotate(self.installation.short())
            .await?;
        self.authority()
    }

    /// Signs a client's certificate.
    pub async fn certificate_create(
        &self,
        scope: &Scope,
        wanted: &CertificateCreate,
    ) -> Result<Certificate> {
        let made = self
            .identities
            .certificate_create(&scope.caller, wanted)
            .await?;
        Ok(Certificate {
            authorities: self.authorities(),
            ..made
        })
    }

    /// The namespace whose tokens a call is about: one's own, or any for the operator.
    fn named(&self, scope: &Scope, namespace: Option<Namespace>) -> Result<Namespace> {
        match namespace {
            None => Ok(scope.namespace.clone()),
            Some(named) if named == scope.namespace => Ok(named),
            Some(named) if scope.caller.role == Role::Operator => {
                if self.identities.exists(&named) {
                    return Ok(named);
                }
                Err(Error::not_found(format!("no such tenant: {named}")))
            }
            Some(_) => Err(Error::forbidden(
                "only the operator may ask for another namespace than its own",
            )),
        }
    }

    /// Tokens, the oldest first.
    pub fn token_list(&self, scope: &Scope, namespace: Option<Namespace>) -> Result<Vec<Token>> {
        Ok(self.identities.tokens(&self.named(scope, namespace)?))
    }

    /// Makes a token.
    pub async fn token_create(&self, scope: &Scope, wanted: &TokenCreate) -> Result<TokenCreated> {
        let namespace = self.named(scope, wanted.namespace.clone())?;
        self.identities.token_create(&namespace, wanted).await
    }

    /// Takes a token back, at once.
    pub async fn token_revoke(
        &self,
        scope: &Scope,
        namespace: Option<Namespace>,
        id: &TokenId,
    ) -> Result<()> {
        let namespace = self.named(scope, namespace)?;
        self.identities.token_revoke(&namespace, id).await
    }

    /// All tenants, by name.
    pub async fn tenant_list(&self) -> Result<Vec<Tenant>> {
        let mut tenants = Vec::new();
        for record in self.identities.tenants() {
            tenants.push(Tenant {
                containers: self.containers.of(&record.name).len(),
                volumes: self.volumes.of(&record.name).len(),
                images: self.catalog.list(&record.name).await?.len(),
                name: record.name,
                created: record.created,
            });
        }
        Ok(tenants)
    }

    /// Makes a tenant: a namespace with the networks that every docker has, and its owner's token.
    pub async fn tenant_create(&self, name: &Namespace) -> Result<TenantCreated> {
        let pool = self.pool_for(Class::Nfs, None).await?.0;
        let (record, owner) = self.identities.tenant_create(name, pool).await?;
        if let Err(error) = self.tenant_networks(name).await {
            // Nobody would ever have its token.
            self.identities.tenant_close(name).await?;
            self.tenant_finish(name).await?;
            return Err(error.context(format!("making tenant {name}")));
        }
        Ok(TenantCreated {
            tenant: Tenant {
                name: record.name,
                created: record.created,
                containers: 0,
                volumes: 0,
                images: 0,
            },
            owner,
        })
    }

    /// Removes a tenant: refused while it has containers or volumes, unless by force. Its tokens
    /// end first, so that nothing new comes; from there on it is finished, if need be by the next
    /// start.
    pub async fn tenant_remove(&self, name: &Namespace, force: bool) -> Result<()> {
        let tenants = self.identities.tenants();
        if !tenants.iter().any(|tenant| tenant.name == *name) {
            return Err(Error::not_found(format!("no such tenant: {name}")));
        }
        let (containers, volumes) = (self.containers.of(name).len(), self.volumes.of(name).len());
        if !force && containers + volumes > 0 {
            return Err(Error::conflict(format!(
                "tenant {name} has {containers} containers and {volumes} volumes: remove them first, or all of it with --force"
            )));
        }
        self.identities.tenant_close(name).await?;
        self.tenant_finish(name).await
    }

    async fn tenant_finish(&self, name: &Namespace) -> Result<()> {
        let scope = Scope::within(name.clone());
        // A call that was let in before may still make something.
        while !self.containers.of(name).is_empty() || !self.volumes.of(name).is_empty() {
            self.tenant_empty(&scope).await?;
        }
        let all = Filters::parse(Some(r#"{"dangling":["false"]}"#))?;
        self.image_prune(&scope, &all).await?;
        self.push_forget(name).await?;
        self.drop_networks(name).await?;
        if let Some(share) = self.share(name) {
            self.agent.share_remove(&share).await?;
        }
        self.identities.tenant_forget(name).await
    }

    /// Removes the containers and volumes of a namespace.
    async fn tenant_empty(&self, scope: &Scope) -> Result<()> {
        let name = &scope.namespace;
        for container in self.containers.of(name) {
            let request = RemoveRequest {
                force: true,
                volumes: true,
            };
            match self
                .container_remove(scope, container.id.as_str(), request)
                .await
            {
                Err(error) if error.kind != types::Kind::NotFound => return Err(error),
                _ => {}
            }
        }
        for volume in self.volumes.of(name) {
            let volume = volume.record().name.to_string();
            self.volume_remove(scope, &volume, true).await?;
        }
        Ok(())
    }

    async fn recover_tenant(&self, tenant: &TenantRecord) -> Result<()> {
        if tenant.removing {
            return self.tenant_finish(&tenant.name).await;
        }
        if tenant.disk.is_none() {
            let pool = self.pool_for(Class::Nfs, None).await?.0;
            self.identities.tenant_disk(&tenant.name, pool).await?;
        }
        self.tenant_networks(&tenant.name).await
    }

    /// Finishes what a crash cut off: removals, and networks that were not made yet.
    pub(crate) async fn recover_tenants(&self) {
        for tenant in self.identities.tenants() {
            if let Err(error) = self.recover_tenant(&tenant).await {
                tracing::warn!(tenant = %tenant.name, %error, "a tenant is not as it should be; the next start tries again");
            }
        }
    }
}
