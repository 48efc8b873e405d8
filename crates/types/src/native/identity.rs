//! Tenants, tokens and certificates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Namespace, Role, Time, TokenId, volume::Class};

/// Who the caller is, to kraud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Whoami {
    pub namespace: Namespace,
    pub role: Role,
    /// The token that was shown, or that the certificate was asked for with. None over the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// When the right ends, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// `socket`, `token` or `certificate`.
    pub by: String,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Token {
    pub id: TokenId,
    pub namespace: Namespace,
    pub role: Role,
    /// What it is for, in the words of who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub created: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// When it was last shown, to within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Time>,
}

/// Asks for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    pub role: Role,
    #[serde(default)]
    pub description: String,
    /// When it ends; never, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// For the operator: the namespace it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
}

/// A new token. The only time that its secret is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenCreated {
    pub token: Token,
    /// The whole token, for `KR_ACCESS_TOKEN`.
    pub secret: String,
}

impl std::fmt::Debug for TokenCreated {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// `GET /tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenList {
    pub tokens: Vec<Token>,
}

/// A namespace of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tenant {
    pub name: Namespace,
    pub created: Time,
    /// How many containers, volumes and images it has.
    pub containers: usize,
    pub volumes: usize,
    pub images: usize,
}

/// Asks for a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TenantCreate {
    pub name: Namespace,
}

/// A new namespace and its owner's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TenantCreated {
    pub tenant: Tenant,
    pub owner: TokenCreated,
}

/// `GET /tenants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TenantList {
    pub tenants: Vec<Tenant>,
}

/// What a tenant may have. Nothing is limited that is not named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Containers, whether they run or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<u64>,
    /// Bytes of memory of all containers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processors of all containers together, such as 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Processes and threads of all containers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Ports of the machine that are published at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<u64>,
    /// Snapshots that the tenant made itself; of automatic ones the schedule says how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
    /// Bytes of the sizes of volumes, by class. Volumes of such a class need a size.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<Class, u64>,
    /// Bytes per second that all containers together read from disks, and as many that they write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<u64>,
    /// Operations per second on disks, in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes of what containers write outside of volumes, and of their logs. Without it,
    /// [`Self::DISK`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Bytes of the layers of images, each file in whole blocks of 4096 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
}

impl Quota {
    /// Bytes of a tenant's disk unless told otherwise.
    pub const DISK: u64 = 10 << 30;

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a namespace has of what quotas are for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct QuotaUse {
    pub namespace: Namespace,
    pub quota: Quota,
    pub containers: u64,
    pub ports: u64,
    pub snapshots: u64,
    /// Bytes of the sizes of volumes, by class.
    pub volumes: BTreeMap<Class, u64>,
    /// Bytes in use now; none while nothing runs, or where it is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes of what containers wrote outside of volumes, and of their logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Bytes of the layers of images.
    #[serde(default)]
    pub images: u64,
}

/// Asks for a client certificate, for programs that know no tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CertificateCreate {
    /// The public key, PEM (`PUBLIC KEY`), on the curve P-256.
    pub public_key: String,
    /// How long it shall be good for, seconds; an hour to thirty days.
    pub seconds: u64,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Certificate {
    /// SHA-256 of its DER form, hexadecimal.
    pub fingerprint: String,
    /// PEM.
    pub certificate: String,
    /// Those to trust for the server's own certificate, PEM. Empty where a public authority has
    /// signed it.
    pub authorities: String,
    pub expires: Time,
}

/// What somebody did, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    pub time: Time,
    /// Of the caller. None of one who was not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// `socket`, `token` or `certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// An address, or `socket`.
    pub from: String,
    /// Method and path, and the name that a new thing was given.
    pub call: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// `GET /audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditList {
    pub entries: Vec<AuditEntry>,
}

/// Asks for another authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuthorityRotate {}

/// `GET /authority`: what to trust this server by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Authority {
    /// SHA-256 of the DER form of the certificate to trust, hexadecimal.
    pub fingerprint: String,
    /// As in [`Certificate::authorities`].
    pub authorities: String,
    /// Until when it is good.
    pub expires: Time,
}
