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
mod record;
mod token;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use authority::PublicKey;
use record::key;
use store::{Guard, Store, Txn};
use tokio::sync::watch;
use types::{
    Error, IdRange, Kind, Namespace, PoolName, Result, Role, Time, TokenId, VolumeId, native,
    record::decode,
};

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
        number_tenants(store.as_ref(), &mut tables.tenants).await?;
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

/// The lowest number that no tenant has.
fn free_number(tenants: &BTreeMap<Namespace, TenantRecord>) -> Option<u32> {
    let taken: HashSet<u32> = tenants.values().filter_map(|one| one.number).collect();
    (0..IdRange::TENANTS).find(|number| !taken.contains(number))
}

/// Gives a number to the tenants of an earlier kraud.
async fn number_tenants(
    store: &dyn Store,
    tenants: &mut BTreeMap<Namespace, TenantRecord>,
) -> Result<()> {
    let without = |one: &&TenantRecord| one.number.is_none();
    let names: Vec<_> = tenants
        .values()
        .filter(without)
        .map(|one| one.name.clone())
        .collect();
    for name in names {
        let number = free_number(tenants);
        let Some(tenant) = tenants.get_mut(&name) else {
            continue;
        };
        tenant.number = number;
        let txn = Txn::new().put_record(key::tenant(&name), tenant)?;
        store.commit(txn).await?;
    }
    Ok(())
}

/// Tenants.
impl Identities {
    /// All of them, by name.
    pub fn tenants(&self) -> Vec<TenantRecord> {
        self.read(|tables| tables.tenants.values().cloned().collect())
    }

    /// Whether a namespace is the operator's own or a tenant's.
    pub fn exists(&self, namespace: &Namespace) -> bool {
        *namespace == Namespace::default()
            || self.read(|tables| tables.tenants.contains_key(namespace))
    }

    /// Makes a namespace, with a token for its owner. The files of its containers will lie in a
    /// dataset of `pool`.
    pub async fn tenant_create(
        &self,
        name: &Namespace,
        pool: PoolName,
    ) -> Result<(TenantRecord, native::TokenCreated)> {
        let _changing = self.0.changing.lock().await;
        if self.exists(name) {
            return Err(Error::conflict(format!("tenant {name} exists already")));
        }
        let number = self
            .read(|tables| free_number(&tables.tenants))
            .ok_or_else(|| {
                Error::conflict(format!(
                    "there are as many tenants as there are ids for: {}",
                    IdRange::TENANTS
                ))
            })?;
        let tenant = TenantRecord {
            name: name.clone(),
            created: Time::now(),
            removing: false,
            quota: native::Quota::default(),
            number: Some(number),
            disk: Some(Disk {
                dataset: VolumeId::random(),
                pool,
            }),
        };
        let (record, created) = new_token(name, Role::Owner, "owner", None);
        let key = key::tenant(name);
        let txn = Txn::new()
            .when(Guard::Absent(key.clone()))
            .put_record(key, &tenant)?
            .put_record(key::token(name, &record.id), &record)?;
        self.0.store.commit(txn).await?;
        self.write(|tables| {
            tables.tenants.insert(name.clone(), tenant.clone());
            tables.tokens.insert(record.id.clone(), Held::new(record));
        });
        Ok((tenant, created))
    }

    /// The machine's ids that a tenant's containers use; none of a namespace that is no tenant's.
    pub fn ids(&self, name: &Namespace) -> Option<IdRange> {
        self.read(|tables| tables.tenants.get(name)?.number)
            .and_then(IdRange::of_tenant)
    }

    /// Where the files of a tenant's containers lie.
    pub fn disk(&self, name: &Namespace) -> Option<Disk> {
        self.read(|tables| tables.tenants.get(name)?.disk.clone())
    }

    /// Gives a tenant of an earlier kraud a place for the files of its containers.
    pub async fn tenant_disk(&self, name: &Namespace, pool: PoolName) -> Result<()> {
        self.tenant_change(name, |tenant| {
            tenant.disk.get_or_insert_with(|| Disk {
                dataset: VolumeId::random(),
                pool,
            });
        })
        .await
    }

    async fn tenant_change(
        &self,
        name: &Namespace,
        change: impl FnOnce(&mut TenantRecord),
    ) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let mut tenant = self
            .read(|tables| tables.tenants.get(name).cloned())
            .ok_or_else(|| Error::not_found(format!("no such tenant: {name}")))?;
        change(&mut tenant);
        let txn = Txn::new().put_record(key::tenant(name), &tenant)?;
        self.0.store.commit(txn).await?;
        self.write(|tables| tables.tenants.insert(name.clone(), tenant));
        Ok(())
    }

    /// What a tenant may have; none of a namespace that is no tenant's.
    pub fn quota(&self, name: &Namespace) -> Option<native::Quota> {
        self.read(|tables| tables.tenants.get(name).map(|tenant| tenant.quota.clone()))
    }

    /// Sets what a tenant may have.
    pub async fn quota_set(&self, name: &Namespace, quota: native::Quota) -> Result<()> {
        self.tenant_change(name, |tenant| tenant.quota = quota)
            .await
    }

    /// Lets nobody of the tenant in any more: the first step of its removal.
    pub async fn tenant_close(&self, name: &Namespace) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let missing = || Error::not_found(format!("no such tenant: {name}"));
        let mut tenant = self
            .read(|tables| tables.tenants.get(name).cloned())
            .ok_or_else(missing)?;
        tenant.removing = true;
        let txn = Txn::new()
            .put_record(key::tenant(name), &tenant)?
            .delete_prefix(key::tokens(name))
            .delete_prefix(key::certificates(name));
        self.0.store.commit(txn).await?;
        self.write(|tables| {
            tables.tenants.insert(name.clone(), tenant);
            tables.certificates.retain(|_, c| c.namespace != *name);
            tables.tokens.retain(|_, held| {
                let stays = held.record().namespace != *name;
                if !stays {
                    held.ended.send_replace(true);
                }
                stays
            });
        });
        Ok(())
    }

    /// Forgets a tenant, of which nothing is left.
    pub async fn tenant_forget(&self, name: &Namespace) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let txn = Txn::new().delete(key::tenant(name));
        self.0.store.commit(txn).await?;
        self.write(|tables| tables.tenants.remove(name));
        Ok(())
    }
}

/// A token's record and what its owner is given.
fn new_token(
    namespace: &Namespace,
    role: Role,
    description: &str,
    expires: Option<Time>,
) -> (TokenRecord, native::TokenCreated) {
    let (id, secret) = (TokenId::random(), token::secret());
    let record = TokenRecord {
        id: id.clone(),
        namespace: namespace.clone(),
        role,
        hash: token::hash(&secret),
        description: description.to_owned(),
        created: Time::now(),
        expires,
        last_used: None,
    };
    let created = native::TokenCreated {
        token: shown(&record),
        secret: token::text(&id, &secret),
    };
    (record, created)
}

fn shown(record: &TokenRecord) -> native::Token {
    native::Token {
        id: record.id.clone(),
        namespace: record.namespace.clone(),
        role: record.role,
        description: record.description.clone(),
        created: record.created,
        expires: record.expires,
        last_used: record.last_used,
    }
}

/// Tokens.
impl Identities {
    /// Those of a namespace, the oldest first.
    pub fn tokens(&self, namespace: &Namespace) -> Vec<native::Token> {
        let mut found: Vec<_> = self
            .read(|tables| {
                tables
                    .tokens
                    .values()
                    .map(|held| held.record())
                    .collect::<Vec<_>>()
            })
            .iter()
            .filter(|record| record.namespace == *namespace)
            .map(shown)
            .collect();
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        found
    }

    /// Makes a token.
    pub async fn token_create(
        &self,
        namespace: &Namespace,
        wanted: &native::TokenCreate,
    ) -> Result<native::TokenCreated> {
        const LONGEST: usize = 200;
        let _changing = self.0.changing.lock().await;
        let closed = self.read(|tables| tables.tenants.get(namespace).is_some_and(|t| t.removing));
        if closed || !self.exists(namespace) {
            return Err(Error::not_found(format!("no such tenant: {namespace}")));
        }
        let own = *namespace == Namespace::default();
        match wanted.role {
            Role::Operator if !own => {
                return Err(Error::invalid(
                    "the role operator is of the operator's own namespace only",
                ));
            }
            Role::Owner if own => {
                return Err(Error::invalid(
                    "the operator's own namespace has no owner: want the role operator, reader or push, or a tenant's namespace",
                ));
            }
            _ => {}
        }
        if wanted.expires.is_some_and(|expires| expires <= Time::now()) {
            return Err(Error::invalid("the token would have expired already"));
        }
        if wanted.description.len() > LONGEST || wanted.description.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "invalid description: one line of {LONGEST} bytes at most"
            )));
        }
        let (record, created) =
            new_token(namespace, wanted.role, &wanted.description, wanted.expires);
        let txn = Txn::new().put_record(key::token(namespace, &record.id), &record)?;
        self.0.store.commit(txn).await?;
        self.write(|tables| tables.tokens.insert(record.id.clone(), Held::new(record)));
        Ok(created)
    }

    /// Takes a token back, and the certificates that were asked for with it. Streams of those who
    /// have it end.
    pub async fn token_revoke(&self, namespace: &Namespace, id: &TokenId) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let held = self.read(|tables| tables.tokens.get(id).cloned());
        // Another namespace's is as good as none.
        let held = held
            .filter(|held| held.record().namespace == *namespace)
            .ok_or_else(|| Error::not_found(format!("no such token: {id}")))?;
        let of_it: Vec<String> = self.read(|tables| {
            let certificates = tables.certificates.values();
            certificates
                .filter(|certificate| certificate.token == *id)
                .map(|certificate| certificate.fingerprint.clone())
                .collect()
        });
        let mut txn = Txn::new().delete(key::token(namespace, id));
        for fingerprint in &of_it {
            txn = txn.delete(key::certificate(namespace, fingerprint));
        }
        self.0.store.commit(txn).await?;
        self.write(|tables| {
            tables.tokens.remove(id);
            for fingerprint in &of_it {
                tables.certificates.remove(fingerprint);
            }
        });
        held.ended.send_replace(true);
        Ok(())
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// [`Kind::Unauthorized`], in the same words whether the token is unknown, wrong or revoked.
    pub fn by_token(&self, text: &str) -> Result<Caller> {
        let wrong = || {
            unauthorized(
                "the token is not valid (any more): kra login, or ask the owner of the namespace for another",
            )
        };
        let (id, secret) = token::parse(text).ok_or_else(wrong)?;
        let held = self
            .read(|tables| tables.tokens.get(&id).cloned())
            .ok_or_else(wrong)?;
        if !token::fits(secret, &held.record().hash) {
            return Err(wrong());
        }
        self.let_in(&held, Proof::Token, None)
    }

    /// Who shows this certificate (DER), whose signature has been checked.
    ///
    /// # Errors
    /// As of [`Self::by_token`].
    pub fn by_certificate(&self, der: &[u8]) -> Result<Caller> {
        let wrong = || {
            unauthorized(
                "the client certificate is not valid (any more): kra setup docker makes another",
            )
        };
        let fingerprint = fingerprint(der);
        let (certificate, held) = self
            .read(|tables| {
                let certificate = tables.certificates.get(&fingerprint)?.clone();
                let held = tables.tokens.get(&certificate.token)?.clone();
                Some((certificate, held))
            })
            .ok_or_else(wrong)?;
        if certificate.expires <= Time::now() {
            return Err(unauthorized(
                "the client certificate has expired: kra setup docker makes another",
            ));
        }
        self.let_in(&held, Proof::Certificate, Some(certificate.expires))
    }

    fn let_in(&self, held: &Arc<Held>, by: Proof, until: Option<Time>) -> Result<Caller> {
        let record = held.record();
        let now = Time::now();
        if record.expires.is_some_and(|expires| expires <= now) {
            return Err(unauthorized(format!(
                "the token {} has expired: ask the owner of the namespace for another",
                record.id
            )));
        }
        let noted = record.last_used.is_some_and(|used| now.since(used) < NOTED);
        if !noted {
            self.note_use(held, now);
        }
        Ok(Caller {
            namespace: record.namespace,
            role: record.role,
            token: Some(record.id),
            expires: record.expires.into_iter().chain(until).min(),
            by,
            ended: Some(held.ended.subscribe()),
        })
    }

    /// Writes down that a token was used, behind.
    fn note_use(&self, held: &Arc<Held>, now: Time) {
        let record = {
            let mut record = held.record.write().unwrap_or_else(PoisonError::into_inner);
            record.last_used = Some(now);
            record.clone()
        };
        let identities = self.clone();
        tokio::spawn(async move {
            let key = key::token(&record.namespace, &record.id);
            // One that was revoked meanwhile must not come back.
            let txn = Txn::new()
                .when(Guard::Present(key.clone()))
                .put_record(key, &record);
            let written = match txn {
                Ok(txn) => identities.0.store.commit(txn).await.map_err(Error::from),
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                tracing::debug!(token = %record.id, %error, "the last use of a token is not noted");
            }
        });
    }
}

/// Certificates.
impl Identities {
    /// Signs a certificate for a caller that has a token.
    pub async fn certificate_create(
        &self,
        caller: &Caller,
        wanted: &native::CertificateCreate,
    ) -> Result<native::Certificate> {
        if !CERTIFICATE_LIFE.contains(&wanted.seconds) {
            return Err(Error::invalid(format!(
                "a certificate is good for {} to {} seconds, not {}",
                CERTIFICATE_LIFE.start(),
                CERTIFICATE_LIFE.end(),
                wanted.seconds
            )));
        }
        let public = PublicKey::from_pem(&wanted.public_key)?;
        let token = caller.token.clone().ok_or_else(|| {
            Error::invalid(
                "a certificate is asked for with a token: over the socket none is needed",
            )
        })?;
        let authority = self.authority()?;
        let now = Time::now();
        let expires = [
            Some(authority::later(now, Duration::from_secs(wanted.seconds))),
            // One that is renewed by itself must not live longer than the token does.
            caller.expires.filter(|_| caller.by == Proof::Token),
            self.token_end(&token),
            Some(authority.expires),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now);
        let name = format!("{} ({})", caller.namespace, caller.role);
        let signed = {
            let authority = authority.clone();
            tokio::task::spawn_blocking(move || authority.sign_client(&name, &public, expires))
                .await
                .map_err(|error| Error::wrap("signing a client's certificate", error))??
        };
        let record = CertificateRecord {
            fingerprint: fingerprint(signed.der()),
            namespace: caller.namespace.clone(),
            token: token.clone(),
            created: now,
            expires,
        };
        let _changing = self.0.changing.lock().await;
        let mut txn = Txn::new()
            .when(Guard::Present(key::token(&caller.namespace, &token)))
            .put_record(
                key::certificate(&caller.namespace, &record.fingerprint),
                &record,
            )?;
        // Those that have expired are nobody's any more.
        let old: Vec<CertificateRecord> = self.read(|tables| {
            let certificates = tables.certificates.values();
            certificates
                .filter(|certificate| certificate.expires <= now)
                .cloned()
                .collect()
        });
        for certificate in &old {
            txn = txn.delete(key::certificate(
                &certificate.namespace,
                &certificate.fingerprint,
            ));
        }
        self.0.store.commit(txn).await?;
        self.write(|tables| {
            for certificate in &old {
                tables.certificates.remove(&certificate.fingerprint);
            }
            tables
                .certificates
                .insert(record.fingerprint.clone(), record.clone());
        });
        Ok(native::Certificate {
            fingerprint: record.fingerprint,
            certificate: signed.pem(),
            authorities: self.authorities_pem(),
            expires,
        })
    }

    fn token_end(&self, id: &TokenId) -> Option<Time> {
        let held = self.read(|tables| tables.tokens.get(id).cloned());
        held.and_then(|held| held.record().expires)
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
