//! Tokens: made, shown, found by their secrets, taken back.

use std::sync::{Arc, PoisonError};

use store::{Guard, Txn};
use types::{Error, Namespace, Result, Role, Time, TokenId, native};

use crate::{
    Caller, Held, Identities, NOTED, Proof, TokenRecord, fingerprint, record::key, token,
    unauthorized,
};

/// A token's record and what its owner is given.
pub(crate) fn new_token(
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
