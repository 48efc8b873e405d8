//! The installation's own certificate authority: signs the server's certificates and clients'.
//!
//! When an authority is followed by a new one, the old one signs the new one's key as well
//! (cross-signing). A server shows both, so that clients that know only the old one and clients
//! that know only the new one find a way to what they trust.

use std::{net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use types::{Error, Result, Time, error::ResultExt as _};

use crate::record::AuthorityRecord;

/// How long an authority is good for.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// How far clocks may differ.
const SKEW: Duration = Duration::from_secs(3600);

/// A certificate chain with its private key, all DER.
#[derive(Clone)]
pub struct ServerIdentity {
    /// The server's own first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8.
    pub key: Vec<u8>,
    pub expires: Time,
}

/// The SHA-256 of a certificate, as it is shown to people.
pub fn fingerprint(der: &[u8]) -> String {
    hex(&Sha256::digest(der))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The DER form of every certificate in a PEM text.
pub fn certificates(pem: &str) -> Result<Vec<Vec<u8>>> {
    blocks(pem, "CERTIFICATE")
}

/// The contents of all PEM blocks of a kind (RFC 7468).
fn blocks(pem: &str, kind: &str) -> Result<Vec<Vec<u8>>> {
    let (begin, end) = (
        format!("-----BEGIN {kind}-----"),
        format!("-----END {kind}-----"),
    );
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once(&begin) {
        let (body, left) = after
            .split_once(&end)
            .ok_or_else(|| Error::invalid(format!("reading PEM: a {kind} without an end")))?;
        let text: String = body.split_ascii_whitespace().collect();
        found.push(
            STANDARD
                .decode(text)
                .map_err(|error| Error::invalid(format!("reading PEM: a {kind}: {error}")))?,
        );
        rest = left;
    }
    Ok(found)
}

fn time_of(time: Time) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(time.unix_seconds()).during(|| "converting a time")
}

/// `by` after `time`; "never" where that cannot be written.
pub(crate) fn later(time: Time, by: Duration) -> Time {
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    Time::from_unix(time.unix_seconds().saturating_add(seconds), 0)
}

fn earlier(time: Time, by: Duration) -> Time {
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    Time::from_unix(time.unix_seconds().saturating_sub(seconds), 0)
}

fn parameters(name: &str, from: Time, to: Time) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = time_of(earlier(from, SKEW))?;
    params.not_after = time_of(to)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority_parameters(record: &AuthorityRecord) -> Result<CertificateParams> {
    let mut params = parameters(&record.name, record.created, record.expires)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

impl AuthorityRecord {
    /// A new one that follows `before`.
    pub(crate) fn create(before: Option<&Self>, installation: &str) -> Result<Self> {
        let number = before.map_or(1, |before| before.number + 1);
        let key = KeyPair::generate().during(|| "making an authority's key")?;
        let created = Time::now();
        let mut record = Self {
            number,
            name: format!("kraud authority {number} of {installation}"),
            key: key.serialize_pem(),
            certificate: String::new(),
            crossed: None,
            created,
            expires: later(created, AUTHORITY_LIFE),
        };
        let params = authority_parameters(&record)?;
        record.certificate = params
            .self_signed(&key)
            .during(|| "signing an authority")?
            .pem();
        if let Some(before) = before {
            // It is worth no more than the one that signs it.
            let mut params = authority_parameters(&record)?;
            params.not_after = time_of(before.expires)?;
            let crossed = params.signed_by(&key, &before.issuer()?);
            record.crossed = Some(crossed.during(|| "signing an authority by another")?.pem());
        }
        Ok(record)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        let key =
            KeyPair::from_pem(&self.key).during(|| format!("reading the key of {}", self.name))?;
        Ok(Issuer::new(authority_parameters(self)?, key))
    }

    /// The DER form of its own certificate.
    pub(crate) fn der(&self) -> Result<Vec<u8>> {
        certificates(&self.certificate)?
            .pop()
            .ok_or_else(|| Error::system(format!("{} has no certificate", self.name)))
    }

    /// A certificate for a server of these names and addresses.
    pub(crate) fn sign_server(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        life: Duration,
    ) -> Result<(Vec<u8>, Vec<u8>, Time)> {
        let now = Time::now();
        let expires = later(now, life).min(self.expires);
        let mut params = parameters("kraud", now, expires)?;
        for name in names {
            let name = name
                .as_str()
                .try_into()
                .map_err(|_| Error::invalid(format!("{name:?} is no name of a server")))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().during(|| "making the server's key")?;
        let certificate = params
            .signed_by(&key, &self.issuer()?)
            .during(|| "signing the server's certificate")?;
        Ok((certificate.der().to_vec(), key.serialize_der(), expires))
    }

    /// A certificate for a client that has the private key of `public`.
    pub(crate) fn sign_client(
        &self,
        name: &str,
        public: &PublicKey,
        expires: Time,
    ) -> Result<rcgen::Certificate> {
        let mut params = parameters(name, Time::now(), expires)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
            .signed_by(public, &self.issuer()?)
            .during(|| "signing a client's certificate")
    }
}

/// A client's public key: a point of P-256.
#[derive(Debug, Clone)]
pub(crate) struct PublicKey(Vec<u8>);

impl PublicKey {
    /// What stands before the point in a `SubjectPublicKeyInfo` (RFC 5480).
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    const POINT: usize = 65;
    const UNCOMPRESSED: u8 = 4;

    pub(crate) fn from_pem(pem: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(
                "invalid public key: want PEM, PUBLIC KEY, on the curve P-256 (openssl ecparam -genkey -name prime256v1)",
            )
        };
        let der = blocks(pem, "PUBLIC KEY")?.pop().ok_or_else(wrong)?;
        let point = der.strip_prefix(&Self::HEAD).ok_or_else(wrong)?;
        if point.len() != Self::POINT || point[0] != Self::UNCOMPRESSED {
            return Err(wrong());
        }
        Ok(Self(point.to_vec()))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_another_kind_is_refused() {
        let key = KeyPair::generate().unwrap();
        let pem = key.public_key_pem();
        assert_eq!(PublicKey::from_pem(&pem).unwrap().0.len(), 65);
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for bad in [
            "",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----",
            &other.public_key_pem(),
            &key.serialize_pem(),
        ] {
            assert!(PublicKey::from_pem(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_authority_that_follows_is_signed_by_the_one_before() {
        let first = AuthorityRecord::create(None, "x").unwrap();
        assert!(first.crossed.is_none());
        let second = AuthorityRecord::create(Some(&first), "x").unwrap();
        assert_eq!(second.number, 2);
        assert_ne!(second.name, first.name);
        assert_eq!(
            certificates(second.crossed.as_ref().unwrap())
                .unwrap()
                .len(),
            1
        );
        assert!(!format!("{second:?}").contains("KEY"));
    }
}
