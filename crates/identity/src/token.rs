//! Tokens as text: `kr_<id>_<secret>`.

use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use types::TokenId;

use crate::authority::hex;

const PREFIX: &str = "kr_";
/// Letters and digits of a secret: 238 bits.
const LENGTH: usize = 40;

/// A new secret.
pub(crate) fn secret() -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // The generator of `rand::rng` is one for secrets (ChaCha12, seeded by the system).
    let mut random = rand::rng();
    let digit = |_| char::from(DIGITS[random.random_range(0..DIGITS.len())]);
    (0..LENGTH).map(digit).collect()
}

/// What a user is given.
pub(crate) fn text(id: &TokenId, secret: &str) -> String {
    format!("{PREFIX}{id}_{secret}")
}

/// The parts of a text that looks like a token.
pub(crate) fn parse(text: &str) -> Option<(TokenId, &str)> {
    let (id, secret) = text.trim().strip_prefix(PREFIX)?.split_once('_')?;
    (secret.len() == LENGTH).then_some((id.parse().ok()?, secret))
}

/// What is kept of a secret.
pub(crate) fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

/// Whether a secret is the one of this hash; takes as long whatever it is.
pub(crate) fn fits(secret: &str, kept: &str) -> bool {
    hash(secret).as_bytes().ct_eq(kept.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let (id, one) = (TokenId::random(), secret());
        let whole = text(&id, &one);
        assert_eq!(parse(&whole), Some((id.clone(), one.as_str())));
        assert_eq!(parse(&format!("{whole}\n")), Some((id, one.as_str())));
        assert!(fits(&one, &hash(&one)));
        assert!(!fits(&secret(), &hash(&one)));
        assert!(!fits(&one, ""));
        for bad in ["", "kr_", "kr_a_b", &whole[1..], &whole[..whole.len() - 1]] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
