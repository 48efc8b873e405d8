//! How a server on the network is known.

use std::{io, sync::Arc};

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use types::{Error, Result, error::ResultExt as _};

/// What a server is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A public authority, of those that this machine trusts, has signed its certificate.
    Public,
    /// One of the certificates that it shows has this SHA-256, hexadecimal, and leads to its own.
    Fingerprint(String),
    /// One of these authorities (PEM) has signed its certificate.
    Authorities(String),
}

impl Trust {
    /// What an operator reads out: 64 hexadecimal digits, perhaps with colons.
    ///
    /// # Errors
    /// When it is no fingerprint.
    pub fn fingerprint(text: &str) -> Result<Self> {
        let plain: String = text
            .trim()
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_ascii_lowercase())
            .collect();
        if plain.len() != 64 || !plain.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::invalid(format!(
                "invalid fingerprint {text:?}: want the 64 hexadecimal digits that `kraud fingerprint` prints"
            )));
        }
        Ok(Self::Fingerprint(plain))
    }
}

pub(crate) fn config(trust: &Trust) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .during(|| "choosing versions of TLS")?;
    let mut roots = RootCertStore::empty();
    let config = match trust {
        Trust::Fingerprint(fingerprint) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                fingerprint: fingerprint.clone(),
                provider,
            }))
            .with_no_client_auth(),
        Trust::Public => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Authorities(pem) => {
            for authority in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let authority = authority.during(|| "reading an authority")?;
                roots.add(authority).during(|| "trusting an authority")?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(Arc::new(config))
}

pub(crate) fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Trusts what a certificate of this fingerprint has signed, or is.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        let digest = Sha256::digest(certificate);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        hex == self.fingerprint
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        // Known by itself, whatever name stands in it.
        if self.is(own) {
            return Ok(ServerCertVerified::assertion());
        }
        let root = others
            .iter()
            .find(|other| self.is(other))
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| tokio_rustls::rustls::Error::General(error.to_string()))?
            .verify_server_cert(own, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        let plain = "ab".repeat(32);
        let wanted = Trust::Fingerprint(plain.clone());
        assert_eq!(Trust::fingerprint(&plain).unwrap(), wanted);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(Trust::fingerprint(&colons).unwrap(), wanted);
        for bad in ["", "ab", &"zz".repeat(32)] {
            assert!(Trust::fingerprint(bad).is_err(), "{bad}");
        }
    }
}
