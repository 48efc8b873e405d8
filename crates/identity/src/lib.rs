//! Who calls: tenants, tokens, client certificates, and the authority that signs certificates.
//!
//! It keeps their records, and tells who shows a token or a certificate. What a role may do is
//! in `types`; who demands which role is the API's to say; what a tenant may ask of the machine
//! is the engine's. It opens no socket.
//!
//! A token's secret is shown once and kept as a hash. A certificate has the rights of the token
//! that it was asked for with, and ends with it.

mod audit;
mod authority;
mod certificates;
mod record;
mod tenants;
mod token;
mod tokens;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use record::key;
use store::{Guard, Store, Txn};
use tokio::sync::watch;
use types::{Error, Kind, Namespace, Result, Role, Time, TokenId, record::decode};

pub use self::{
    audit::{Audit, AuditFilter},
    authority::{ServerIdentity, certificates, fingerprint},
    record::{AuthorityRecord, CertificateRecord, Disk, TenantRecord, TokenRecord},
};

/// How often the last use of a token is written down.
const NOTED: Duration = Duration::from_secs(60);
/// The shortest and the longest life of a client certificate.
const CERTIFICATE_LIFE: std::ops::RangeInclusive<u64> = 3600..=30 * 86_400;

/// How a caller has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It could open the socket.
    Socket,
    Token,
    Certificate,
}

impl Proof {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}

/// Somebody who is known.
#[derive(Debug, Clone)]
pub struct Caller {
    pub namespace: Namespace,
    pub role: Role,
    /// The token it has, or that its certificate was asked for with.
    pub token: Option<TokenId>,
    pub expires: Option<Time>,
    pub by: Proof,
    /// Turns true when the right is taken away.
    ended: Option<watch::Receiver<bool>>,
}

impl Caller {
    /// Whoever can open the socket.
    pub fn operator() -> Self {
        Self {
            namespace: Namespace::default(),
            role: Role::Operator,
            token: None,
            expires: None,
            by: Proof::Socket,
            ended: None,
        }
    }

    /// Returns when the right of the caller has been taken away or has expired.
    pub async fn ended(mut self) {
        let revoked = async {
            match &mut self.ended {
                // A sender that is gone is a token that is gone.
                Some(ended) => drop(ended.wait_for(|ended| *ended).await),
                None => std::future::pending().await,
            }
        };
        let expired = async {
            match self.expires {
                Some(expires) => tokio::time::sleep(expires.since(Time::now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = revoked => {}
            () = expired => {}
        }
    }
}

/// A token that is good.
#[derive(Debug)]
struct Held {
    record: RwLock<TokenRecord>,
    ended: watch::Sender<bool>,
}

impl Held {
    fn new(record: TokenRecord) -> Arc<Self> {
        Arc::new(Self {
            record: RwLock::new(record),
            ended: watch::Sender::new(false),
        })
    }
    fn record(&self) -> TokenRecord {
        self.record
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[derive(Debug, Default)]
struct Tables {
    tenants: BTreeMap<Namespace, TenantRecord>,
    tokens: HashMap<TokenId, Arc<Held>>,
    certificates: HashMap<String, CertificateRecord>,
    /// The oldest first.
    authorities: Vec<Arc<AuthorityRecord>>,
}

struct Inner {
    store: Arc<dyn Store>,
    tables: RwLock<Tables>,
    /// Held while records are changed.
    changing: tokio::sync::Mutex<()>,
    /// The number of the newest authority.
    newest: watch::Sender<u32>,
}

/// All that is known of callers. Cheap to clone.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities").finish_non_exhaustive()
    }
}

fn unauthorized(message: impl Into<String>) -> Error {
    Error::new(Kind::Unauthorized, message)
}

impl Identities {
    /// Reads the records. The first start makes an authority; `installation` is put into its name.
    pub async fn open(store: Arc<dyn Store>, installation: &str) -> Result<Self> {
        let mut tables = Tables::default();
        for entry in store.list(key::NAMESPACES).await?.entries {
            let parts: Vec<&str> = entry.key.split('/').collect();
            match parts.as_slice() {
                [_, _, "tenant"] => {
                    let record: TenantRecord = decode(&entry.value)?;
                    tables.tenants.insert(record.name.clone(), record);
                }
                [_, _, "tokens", _] => {
                    let record: TokenRecord = decode(&entry.value)?;
                    tables.tokens.insert(record.id.clone(), Held::new(record));
                }
                [_, _, "certificates", _] => {
                    let record: CertificateRecord = decode(&entry.value)?;
                    tables
                        .certificates
                        .insert(record.fingerprint.clone(), record);
                }
                _ => {}
            }
        }
        tenants::number_tenants(store.as_ref(), &mut tables.tenants).await?;
        for entry in store.list(key::AUTHORITIES).await?.entries {
            tables.authorities.push(Arc::new(decode(&entry.value)?));
        }
        let identities = Self(Arc::new(Inner {
            store,
            tables: RwLock::new(tables),
            changing: tokio::sync::Mutex::default(),
            newest: watch::Sender::new(0),
        }));
        if identities.read(|tables| tables.authorities.is_empty()) {
            identities.authority_rotate(installation).await?;
        }
        Ok(identities)
    }

    fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.0.tables.read().unwrap_or_else(PoisonError::into_inner))
    }
    fn write<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        change(
            &mut self
                .0
                .tables
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// The authority.
impl Identities {
    /// The newest.
    fn authority(&self) -> Result<Arc<AuthorityRecord>> {
        self.read(|tables| tables.authorities.last().cloned())
            .ok_or_else(|| Error::system("there is no certificate authority"))
    }

    /// Makes a new one, which signs from now on. What the ones before have signed stays good, and
    /// who trusts them finds a way to the new one.
    pub async fn authority_rotate(&self, installation: &str) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let before = self.read(|tables| tables.authorities.last().cloned());
        let installation = installation.to_owned();
        let record = tokio::task::spawn_blocking(move || {
            AuthorityRecord::create(before.as_deref(), &installation)
        })
        .await
        .map_err(|error| Error::wrap("making an authority", error))??;
        let key = key::authority(record.number);
        let txn = Txn::new()
            .when(Guard::Absent(key.clone()))
            .put_record(key, &record)?;
        self.0.store.commit(txn).await?;
        let number = record.number;
        self.write(|tables| tables.authorities.push(Arc::new(record)));
        self.0.newest.send_replace(number);
        Ok(())
    }

    /// Tells when there is a new one.
    pub fn authority_changes(&self) -> watch::Receiver<u32> {
        self.0.newest.subscribe()
    }

    /// The DER form of all that clients' certificates may be signed by.
    pub fn client_roots(&self) -> Result<Vec<Vec<u8>>> {
        let now = Time::now();
        self.read(|tables| {
            tables
                .authorities
                .iter()
                .filter(|authority| authority.expires > now)
                .map(|authority| authority.der())
                .collect()
        })
    }

    /// What clients trust, PEM; the newest first.
    pub fn authorities_pem(&self) -> String {
        let now = Time::now();
        self.read(|tables| {
            let authorities = tables.authorities.iter().rev();
            authorities
                .filter(|authority| authority.expires > now)
                .map(|authority| authority.certificate.as_str())
                .collect()
        })
    }

    /// The fingerprint of the newest authority and when it ends.
    pub fn authority_fingerprint(&self) -> Result<(String, Time)> {
        let authority = self.authority()?;
        Ok((fingerprint(&authority.der()?), authority.expires))
    }

    /// A certificate for a server of these names and addresses, with all that leads from it to any
    /// authority that clients may know.
    pub fn server_identity(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        life: Duration,
    ) -> Result<ServerIdentity> {
        let (own, key, expires) = self.authority()?.sign_server(names, addresses, life)?;
        let mut chain = vec![own];
        let now = Time::now();
        let authorities: Vec<_> = self.read(|tables| tables.authorities.clone());
        for authority in authorities.iter().rev() {
            if let Some(crossed) = &authority.crossed {
                chain.extend(certificates(crossed)?);
            }
        }
        // The authorities themselves, so that they can be known by their fingerprints.
        for authority in authorities.iter().rev() {
            if authority.expires > now {
                chain.push(authority.der()?);
            }
        }
        Ok(ServerIdentity {
            chain,
            key,
            expires,
        })
    }
}

#[cfg(test)]
mod tests;
