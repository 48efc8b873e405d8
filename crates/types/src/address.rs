//! Which addresses are whose.

use std::net::IpAddr;

/// Whether an address is one of the internet's: not the machine's own, nor that of a network
/// around it (RFC 1918, 4193, 6598, link-local and the like).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                // Shared address space, RFC 6598.
                || (v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1])))
        }
        IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), v6.segments()) {
            (Some(v4), _) => is_public(v4.into()),
            // NAT64 (RFC 6052) leads to the address in its end.
            (None, [0x64, 0xff9b, 0, 0, 0, 0, high, low]) => {
                let bits = (u32::from(high) << 16) | u32::from(low);
                is_public(IpAddr::V4(bits.into()))
            }
            (None, _) => {
                !(v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local())
            }
        },
    }
}

/// Whether a host of a URL is by its looks not of the internet: an address that is not public, or
/// a name without a dot, as those of a local network are. An IPv6 address may have its brackets.
pub fn is_inside(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => {
            let name = bare.trim_end_matches('.').to_ascii_lowercase();
            name.ends_with(".localhost") || !name.contains('.')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_and_outside() {
        for inside in [
            "localhost",
            "x.localhost.",
            "registry",
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "[::1]",
            "::ffff:192.168.0.1",
            "fd00::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(is_inside(inside), "{inside}");
        }
        for outside in [
            "registry-1.docker.io",
            "9.9.9.9",
            "[2001:db8::1]",
            "64:ff9b::909:909",
        ] {
            assert!(!is_inside(outside), "{outside}");
        }
    }
}
