//! Who one is, tokens, certificates, tenants.

use types::native::{
    AuditEntry, AuditList, Authority, AuthorityRotate, Certificate, CertificateCreate, Quota,
    QuotaUse, Tenant, TenantCreate, TenantCreated, TenantList, Token, TokenCreate, TokenCreated,
    TokenList, Whoami,
};

use crate::{Client, Result};

impl Client {
    /// Who the caller is.
    pub async fn whoami(&self) -> Result<Whoami> {
        self.get(&["whoami"], &[]).await
    }

    /// The tokens of one's own namespace, or for the operator of another.
    pub async fn tokens(&self, namespace: Option<&str>) -> Result<Vec<Token>> {
        let list: TokenList = self.get(&["tokens"], &of(namespace)).await?;
        Ok(list.tokens)
    }

    /// Makes a token.
    pub async fn token_create(&self, wanted: &TokenCreate) -> Result<TokenCreated> {
        self.post(&["tokens"], wanted).await
    }

    /// Takes a token back.
    pub async fn token_revoke(&self, id: &str, namespace: Option<&str>) -> Result<()> {
        self.delete(&["tokens", id], &of(namespace)).await
    }

    /// Has a client certificate signed.
    pub async fn certificate_create(&self, wanted: &CertificateCreate) -> Result<Certificate> {
        self.post(&["certificates"], wanted).await
    }

    /// What to trust the server by.
    pub async fn authority(&self) -> Result<Authority> {
        self.get(&["authority"], &[]).await
    }

    /// Makes another authority.
    pub async fn authority_rotate(&self) -> Result<Authority> {
        self.post(&["authority", "rotate"], &AuthorityRotate {})
            .await
    }

    /// What was done, the oldest first; `query` as the API's description names it.
    pub async fn audit(&self, query: &[(&str, &str)]) -> Result<Vec<AuditEntry>> {
        let list: AuditList = self.get(&["audit"], query).await?;
        Ok(list.entries)
    }

    /// All tenants.
    pub async fn tenants(&self) -> Result<Vec<Tenant>> {
        let list: TenantList = self.get(&["tenants"], &[]).await?;
        Ok(list.tenants)
    }

    /// Makes a tenant.
    pub async fn tenant_create(&self, wanted: &TenantCreate) -> Result<TenantCreated> {
        self.post(&["tenants"], wanted).await
    }

    /// What a tenant may have.
    pub async fn quota(&self, name: &str) -> Result<Quota> {
        self.get(&["tenants", name, "quota"], &[]).await
    }

    /// Says what a tenant may have.
    pub async fn quota_set(&self, name: &str, quota: &Quota) -> Result<Quota> {
        self.put(&["tenants", name, "quota"], quota).await
    }

    /// What the namespace has, and what it may have; for the operator of any.
    pub async fn quota_use(&self, namespace: Option<&str>) -> Result<QuotaUse> {
        self.get(&["usage"], &of(namespace)).await
    }

    /// Removes a tenant.
    pub async fn tenant_remove(&self, name: &str, force: bool) -> Result<()> {
        let query: &[(&str, &str)] = if force { &[("force", "1")] } else { &[] };
        self.delete(&["tenants", name], query).await
    }
}

fn of(namespace: Option<&str>) -> Vec<(&str, &str)> {
    namespace
        .map(|name| ("namespace", name))
        .into_iter()
        .collect()
}
