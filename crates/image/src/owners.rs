//! Owners in a tree that is seen through a user namespace: what its processes call them.

use types::IdRange;

/// The attribute that holds capabilities of a program.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// Owners as those inside see them, or as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Owners(pub(crate) Option<IdRange>);

/// `VFS_CAP_REVISION_2` and `_3` of `linux/capability.h`, in the top byte, with their sizes. The
/// third has the user id of the namespace's root at its end.
const REVISION_2: (u8, usize) = (2, 20);
const REVISION_3: (u8, usize) = (3, 24);

impl Owners {
    /// The id that a tar has for one of the kernel's.
    pub(crate) fn to_tar(self, id: u32) -> u32 {
        self.0.map_or(id, |ids| ids.inside(id))
    }

    /// The kernel's id for one of a tar; `None` where there is none.
    pub(crate) fn to_kernel(self, id: u32) -> Option<u32> {
        match self.0 {
            None => Some(id),
            Some(ids) => ids.outside(id),
        }
    }

    /// The value of an attribute in a tar, where capabilities are those of anybody's root.
    pub(crate) fn attribute_to_tar(self, name: &[u8], mut value: Vec<u8>) -> Vec<u8> {
        let of_root = |ids: IdRange| value.ends_with(&ids.first.to_le_bytes());
        if name == CAPABILITY
            && self.0.is_some_and(of_root)
            && (value.get(3), value.len()) == (Some(&REVISION_3.0), REVISION_3.1)
        {
            value.truncate(REVISION_2.1);
            value[3] = REVISION_2.0;
        }
        value
    }

    /// The reverse.
    pub(crate) fn attribute_to_kernel(self, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut value = value.to_vec();
        if let Some(ids) = self.0
            && name == CAPABILITY
            && (value.get(3), value.len()) == (Some(&REVISION_2.0), REVISION_2.1)
        {
            value[3] = REVISION_3.0;
            value.extend(ids.first.to_le_bytes());
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_capabilities() {
        let ids = IdRange::of_tenant(1).unwrap();
        let (plain, mapped) = (Owners(None), Owners(Some(ids)));
        assert_eq!((plain.to_tar(7), plain.to_kernel(7)), (7, Some(7)));
        assert_eq!(mapped.to_tar(ids.first + 7), 7);
        assert_eq!(mapped.to_kernel(7), Some(ids.first + 7));
        assert_eq!(mapped.to_kernel(70_000), None);

        let ping = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let kernel = mapped.attribute_to_kernel(CAPABILITY, &ping);
        assert_eq!((kernel[3], kernel.len()), (3, 24));
        assert_eq!(mapped.attribute_to_tar(CAPABILITY, kernel.clone()), ping);
        assert_eq!(plain.attribute_to_tar(CAPABILITY, kernel.clone()), kernel);
        assert_eq!(plain.attribute_to_kernel(CAPABILITY, &ping), ping);
        assert_eq!(mapped.attribute_to_kernel(b"user.x", &ping), ping);
        assert_eq!(mapped.attribute_to_tar(CAPABILITY, Vec::new()), b"");
    }
}
