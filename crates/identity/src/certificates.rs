//! Client certificates: signed with the rights of a token, and found by their fingerprints.

use std::time::Duration;

use store::{Guard, Txn};
use types::{Error, Result, Time, TokenId, native};

use crate::{
    CERTIFICATE_LIFE, Caller, CertificateRecord, Identities, Proof, authority,
    authority::PublicKey, fingerprint, record::key,
};

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
