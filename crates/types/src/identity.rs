//! Who may do what: roles of tokens, and what calls demand of them.

use std::{fmt, str::FromStr};

use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the holder of a token may do in the token's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, in the operator's namespace, and all that concerns the installation.
    Operator,
    /// Everything that a namespace is for.
    Owner,
    /// Looks, and changes nothing.
    Reader,
    /// Brings images, and sees whether they are there: for CI.
    Push,
}

/// What a call demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To know who calls.
    Known,
    /// To see what is in the namespace.
    Read,
    /// To bring images, or to see whether they are there.
    Push,
    /// To change something in the namespace.
    Write,
    /// To concern the whole installation.
    Operate,
}

impl Role {
    /// All roles, the mightiest first.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Owner, Self::Reader, Self::Push];

    /// Whether this role is enough for a call.
    pub fn may(self, access: Access) -> bool {
        match access {
            Access::Known => true,
            Access::Read => self != Self::Push,
            Access::Push => self != Self::Reader,
            Access::Write => matches!(self, Self::Operator | Self::Owner),
            Access::Operate => self == Self::Operator,
        }
    }
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Owner => "owner",
            Self::Reader => "reader",
            Self::Push => "push",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "invalid role {text:?}: want owner, reader, push or operator"
                ))
            })
    }
}

/// The public part of a token: what lists show and what revokes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

impl TokenId {
    /// Digits and small letters of it.
    pub const LENGTH: usize = 12;

    /// A new random one.
    pub fn random() -> Self {
        const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut random = rand::rng();
        let digit = |_| char::from(DIGITS[random.random_range(0..DIGITS.len())]);
        Self((0..Self::LENGTH).map(digit).collect())
    }
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let fits = text.len() == Self::LENGTH
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !fits {
            return Err(Error::invalid(format!(
                "invalid token id {text:?}: want {} of a-z and 0-9, as `kra token ls` shows it",
                Self::LENGTH
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TokenId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// User and group ids of the machine that stand for 0, 1, … in a tenant's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRange {
    /// The one that is root's inside.
    pub first: u32,
    pub count: u32,
}

impl IdRange {
    /// Ids of one tenant: all that 16 bits name, `nobody` (65534) included.
    pub const EACH: u32 = 65_536;
    /// The first id of all tenants, unless told otherwise. systemd leaves the ids from here up to
    /// its foreign ones unused ("Users, Groups, UIDs and GIDs on systemd Systems").
    pub const FIRST: u32 = 0x7000_0000;
    /// How many tenants there is room for: up to systemd's foreign ids, 0x7FFE0000.
    pub const TENANTS: u32 = 0x0FFE;

    /// The ids of the tenant with this number.
    pub fn of_tenant(number: u32) -> Option<Self> {
        (number < Self::TENANTS).then(|| Self {
            first: Self::FIRST + number * Self::EACH,
            count: Self::EACH,
        })
    }

    /// The machine's id of one inside; `None` where there is none.
    pub fn outside(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.first + id)
    }

    /// The id inside of one of the machine's; what has none is seen as `nobody`, as the kernel
    /// shows it.
    pub fn inside(self, id: u32) -> u32 {
        const NOBODY: u32 = 65_534;
        match id.checked_sub(self.first) {
            Some(inside) if inside < self.count => inside,
            _ => NOBODY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        use Access::*;
        let may = |role: Role| [Known, Read, Push, Write, Operate].map(|access| role.may(access));
        assert_eq!(may(Role::Operator), [true; 5]);
        assert_eq!(may(Role::Owner), [true, true, true, true, false]);
        assert_eq!(may(Role::Reader), [true, true, false, false, false]);
        assert_eq!(may(Role::Push), [true, false, true, false, false]);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn ids() {
        let id = TokenId::random();
        assert_eq!(id.to_string().parse::<TokenId>().unwrap(), id);
        for bad in ["", "short", "ABCDEFGHIJKL", "abcdefghijkl1", "abcdef/../kl"] {
            assert!(bad.parse::<TokenId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_of_tenants() {
        let last = IdRange::of_tenant(IdRange::TENANTS - 1).unwrap();
        assert_eq!(last.first + last.count, 0x7FFE_0000);
        assert_eq!(IdRange::of_tenant(IdRange::TENANTS), None);
        let second = IdRange::of_tenant(1).unwrap();
        assert_eq!(second.outside(0), Some(0x7001_0000));
        assert_eq!(second.outside(65_536), None);
        assert_eq!(second.inside(0x7001_0005), 5);
        assert_eq!(second.inside(0x7000_FFFF), 65_534);
        assert_eq!(second.inside(0), 65_534);
    }
}
