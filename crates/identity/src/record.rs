//! What is kept of tenants, tokens and certificates, and under which keys.
//!
//! | key | record |
//! |---|---|
//! | `ns/<namespace>/tenant` | [`TenantRecord`] |
//! | `ns/<namespace>/tokens/<id>` | [`TokenRecord`] |
//! | `ns/<namespace>/certificates/<fingerprint>` | [`CertificateRecord`] |
//! | `pki/authorities/<number>` | [`AuthorityRecord`] |

use serde::{Deserialize, Serialize};
use types::{Namespace, PoolName, Role, Time, TokenId, VolumeId, native::Quota, record::Record};

/// A namespace that was made for somebody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantRecord {
    pub name: Namespace,
    pub created: Time,
    /// It is being removed, and nobody is let in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
    /// What it may have.
    #[serde(default, skip_serializing_if = "Quota::is_empty")]
    pub quota: Quota,
    /// Whose ids its containers use: [`types::IdRange::of_tenant`]. No two tenants have the same.
    /// Version 1 had none; [`crate::Identities::open`] gives one.
    pub number: Option<u32>,
    /// Where the files of its containers lie. Version 1 had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// A dataset on a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub dataset: VolumeId,
    pub pool: PoolName,
}

impl Record for TenantRecord {
    const NOUN: &'static str = "tenant";
    const VERSION: u32 = 2;

    fn upgrade(_: u32, value: serde_json::Value) -> types::Result<serde_json::Value> {
        Ok(value)
    }
}

/// A token. Its secret is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: TokenId,
    pub namespace: Namespace,
    pub role: Role,
    /// SHA-256 of the secret, hexadecimal. The secret is random and long, so nothing slower is
    /// needed.
    pub hash: String,
    pub description: String,
    pub created: Time,
    pub expires: Option<Time>,
    /// Written at most once a minute.
    pub last_used: Option<Time>,
}

impl Record for TokenRecord {
    const NOUN: &'static str = "token";
}

/// A client certificate that was signed and is not revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// SHA-256 of its DER form, hexadecimal.
    pub fingerprint: String,
    pub namespace: Namespace,
    /// The token that it was asked for with, and whose rights it has.
    pub token: TokenId,
    pub created: Time,
    pub expires: Time,
}

impl Record for CertificateRecord {
    const NOUN: &'static str = "certificate";
}

/// An authority of this installation. The newest signs; older ones are trusted to their end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// Counts from 1.
    pub number: u32,
    /// The name that it signs by.
    pub name: String,
    /// PEM. A secret.
    pub key: String,
    /// Signed by itself, PEM.
    pub certificate: String,
    /// Signed by the one before, PEM, for those who know only that.
    pub crossed: Option<String>,
    pub created: Time,
    pub expires: Time,
}

impl std::fmt::Debug for AuthorityRecord {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityRecord")
            .field("number", &self.number)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Record for AuthorityRecord {
    const NOUN: &'static str = "authority";
}

/// Keys of the records.
pub(crate) mod key {
    use types::{Namespace, TokenId};

    pub(crate) const AUTHORITIES: &str = "pki/authorities/";
    pub(crate) const NAMESPACES: &str = "ns/";

    pub(crate) fn tenant(namespace: &Namespace) -> String {
        format!("ns/{namespace}/tenant")
    }
    pub(crate) fn token(namespace: &Namespace, id: &TokenId) -> String {
        format!("ns/{namespace}/tokens/{id}")
    }
    pub(crate) fn tokens(namespace: &Namespace) -> String {
        format!("ns/{namespace}/tokens/")
    }
    pub(crate) fn certificate(namespace: &Namespace, fingerprint: &str) -> String {
        format!("ns/{namespace}/certificates/{fingerprint}")
    }
    pub(crate) fn certificates(namespace: &Namespace) -> String {
        format!("ns/{namespace}/certificates/")
    }
    pub(crate) fn authority(number: u32) -> String {
        format!("pki/authorities/{number:06}")
    }
}

#[cfg(test)]
mod tests {
    use types::record::check_golden;

    use super::*;

    #[test]
    fn stored_forms() {
        check_golden::<TenantRecord>(&[
            include_bytes!("../golden/tenant.v1.json"),
            include_bytes!("../golden/tenant.v2.json"),
        ])
        .unwrap();
        check_golden::<TokenRecord>(&[include_bytes!("../golden/token.v1.json")]).unwrap();
        check_golden::<CertificateRecord>(&[include_bytes!("../golden/certificate.v1.json")])
            .unwrap();
        check_golden::<AuthorityRecord>(&[include_bytes!("../golden/authority.v1.json")]).unwrap();
    }
}
