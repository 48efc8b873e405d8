//! Which addresses are free: pure bookkeeping, no kernel and no store.
//!
//! A [`Pool`] is rebuilt at start from what the store says is in use ([`Pool::reserve`]).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};
use types::{Error, Result};

use crate::model::Subnet;

/// A range that subnets of one size are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolRange {
    /// The whole range.
    pub base: IpNet,
    /// Prefix length of the subnets.
    pub size: u8,
}

/// Docker's own default: sixteen-bit subnets 172.17 to 172.31, then 192.168 in steps of twenty bits.
pub fn default_pools() -> Vec<PoolRange> {
    let v4 = |a, b, prefix| {
        Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), prefix)
            .ok()
            .map(IpNet::V4)
    };
    let whole = (17..=31).filter_map(|b| {
        Some(PoolRange {
            base: v4(172, b, 16)?,
            size: 16,
        })
    });
    whole
        .chain(v4(192, 168, 16).map(|base| PoolRange { base, size: 20 }))
        .collect()
}

/// A private IPv6 range of its own for an installation (RFC 4193), cut into /64 subnets.
pub fn private_v6(seed: &str) -> PoolRange {
    let hash = u128::from(crate::sandbox::fnv([seed.as_bytes()]) >> 24);
    let base = Ipv6Addr::from_bits(0xfd << 120 | hash << 80);
    PoolRange {
        base: IpNet::V6(ipnet::Ipv6Net::new_assert(base, 48)),
        size: 64,
    }
}

/// The first subnet of `pools` that overlaps none of `used`.
///
/// Fails, in docker's words, when there is none.
pub fn choose(pools: &[PoolRange], used: &[IpNet]) -> Result<IpNet> {
    let free = |net: &IpNet| !used.iter().any(|other| overlap(net, other));
    let mut all = pools
        .iter()
        .flat_map(|pool| pool.base.subnets(pool.size).into_iter().flatten());
    all.find(free)
        .ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))
}

/// Whether two nets share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Checks a subnet that a user asked for and completes it: the gateway is the first host
/// address where none is given, the net's host bits are cleared.
pub fn complete(subnet: &Subnet) -> Result<Subnet> {
    let net = subnet.net.trunc();
    let within = |what: &str, ip: IpAddr| {
        if net.contains(&ip) {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "no matching subnet for {what} {ip}"
            )))
        }
    };
    if let Some(range) = subnet.range {
        within("range", range.network())?;
        if range.prefix_len() < net.prefix_len() {
            return Err(Error::invalid(format!(
                "no matching subnet for range {range}"
            )));
        }
    }
    if let Some(gateway) = subnet.gateway {
        within("gateway", gateway)?;
    }
    let first = subnet.range.map_or(net, |range| range.trunc());
    let (low, _) = bounds(&net, &first);
    let gateway = subnet.gateway.or(if low == 0 {
        None
    } else {
        Some(from_bits(&net, low))
    });
    Ok(Subnet {
        net,
        gateway,
        range: subnet.range,
    })
}

/// The addresses of one subnet that are in use, and the next to give away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    net: IpNet,
    gateway: Option<IpAddr>,
    /// First and last address to give away, as numbers.
    low: u128,
    high: u128,
    used: BTreeSet<u128>,
    /// Where the next search starts: a released address rests until all others had their turn.
    next: u128,
}

impl Pool {
    /// An empty pool; only the gateway is taken.
    pub fn new(subnet: &Subnet) -> Result<Self> {
        let Subnet {
            net,
            gateway,
            range,
        } = complete(subnet)?;
        let (low, high) = bounds(&net, &range.map_or(net, |range| range.trunc()));
        let used = gateway.iter().map(|ip| bits(*ip)).collect();
        Ok(Self {
            net,
            gateway,
            low,
            high,
            used,
            next: low,
        })
    }

    /// The subnet.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The gateway's address.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// Takes the next free address, counting upwards and starting over at the end.
    pub fn allocate(&mut self) -> Result<IpNet> {
        let free = self
            .first_free(self.next, self.high)
            .or_else(|| self.first_free(self.low, self.next));
        let found = free.ok_or_else(|| {
            Error::system(format!(
                "no available IPv{} addresses on this network's address pools: {}",
                self.version(),
                self.net
            ))
        })?;
        self.used.insert(found);
        self.next = if found < self.high {
            found + 1
        } else {
            self.low
        };
        self.with_prefix(from_bits(&self.net, found))
    }

    fn first_free(&self, from: u128, to: u128) -> Option<u128> {
        let mut candidate = from;
        // The used addresses are sorted: the first gap is where they part from counting.
        for &used in self.used.range(from..) {
            if used != candidate {
                break;
            }
            candidate = candidate.checked_add(1)?;
        }
        (candidate <= to).then_some(candidate)
    }

    /// Takes one address. Fails when it is outside the subnet or taken.
    pub fn reserve(&mut self, ip: IpAddr) -> Result<IpNet> {
        let number = bits(ip);
        let (low, high) = bounds(&self.net, &self.net);
        if ip.is_ipv4() != self.net.addr().is_ipv4() || !(low..=high).contains(&number) {
            return Err(Error::invalid(format!(
                "no configured subnet or ip-range contain the IP address {ip}"
            )));
        }
        if !self.used.insert(number) {
            return Err(Error::forbidden("Address already in use"));
        }
        self.with_prefix(ip)
    }

    /// Gives an address back. The gateway stays taken.
    pub fn release(&mut self, ip: IpAddr) -> bool {
        Some(ip) != self.gateway
            && ip.is_ipv4() == self.net.addr().is_ipv4()
            && self.used.remove(&bits(ip))
    }

    /// How many addresses are taken, the gateway's included.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    fn version(&self) -> u8 {
        if self.net.addr().is_ipv4() { 4 } else { 6 }
    }

    fn with_prefix(&self, ip: IpAddr) -> Result<IpNet> {
        IpNet::new(ip, self.net.prefix_len())
            .map_err(|_| Error::system(format!("address {ip} has no place in {}", self.net)))
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(net: &IpNet, number: u128) -> IpAddr {
    match net {
        // Numbers of an IPv4 pool come from IPv4 addresses.
        IpNet::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// First and last address of `range` that a host of `net` can have: neither the net's own
/// address nor, with IPv4, its broadcast address.
fn bounds(net: &IpNet, range: &IpNet) -> (u128, u128) {
    let (mut low, mut high) = (bits(range.network()), bits(range.broadcast()));
    let point_to_point = net.max_prefix_len() - net.prefix_len() < 2;
    if !point_to_point {
        low = low.max(bits(net.network()) + 1);
        if net.addr().is_ipv4() {
            high = high.min(bits(net.broadcast()) - 1);
        }
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(net: &str, gateway: Option<&str>, range: Option<&str>) -> Subnet {
        Subnet {
            net: net.parse().unwrap(),
            gateway: gateway.map(|ip| ip.parse().unwrap()),
            range: range.map(|net| net.parse().unwrap()),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn counts_upwards_and_reuses_late() {
        let mut pool = Pool::new(&subnet("10.0.0.0/29", None, None)).unwrap();
        assert_eq!(pool.gateway(), Some(ip("10.0.0.1")));
        let mut take = || pool.allocate().map(|net| net.to_string());
        assert_eq!(take().unwrap(), "10.0.0.2/29");
        assert_eq!(take().unwrap(), "10.0.0.3/29");
        assert!(pool.release(ip("10.0.0.2")));
        assert!(!pool.release(ip("10.0.0.1")), "the gateway stays");
        for last in [4, 5, 6, 2] {
            assert_eq!(
                pool.allocate().unwrap().to_string(),
                format!("10.0.0.{last}/29")
            );
        }
        assert!(
            pool.allocate()
                .unwrap_err()
                .message
                .contains("no available IPv4 addresses")
        );
    }

    #[test]
    fn ranges_and_fixed_addresses() {
        let mut pool = Pool::new(&subnet(
            "10.0.0.0/24",
            Some("10.0.0.254"),
            Some("10.0.0.128/30"),
        ))
        .unwrap();
        assert_eq!(
            pool.reserve(ip("10.0.0.9")).unwrap().to_string(),
            "10.0.0.9/24"
        );
        assert!(pool.reserve(ip("10.0.0.9")).is_err());
        assert!(pool.reserve(ip("10.0.0.255")).is_err());
        assert!(pool.reserve(ip("10.0.1.1")).is_err());
        assert!(pool.reserve(ip("fd00::1")).is_err());
        let got: Vec<_> = std::iter::from_fn(|| pool.allocate().ok())
            .map(|net| net.addr())
            .collect();
        assert_eq!(
            got,
            ["10.0.0.128", "10.0.0.129", "10.0.0.130", "10.0.0.131"].map(ip)
        );
    }

    #[test]
    fn version_six_and_tiny_nets() {
        let mut pool = Pool::new(&subnet("fd00::/64", None, None)).unwrap();
        assert_eq!(pool.gateway(), Some(ip("fd00::1")));
        assert_eq!(pool.allocate().unwrap().to_string(), "fd00::2/64");
        let mut single = Pool::new(&subnet("10.0.0.7/32", None, None)).unwrap();
        assert!(single.allocate().is_err());
        assert!(Pool::new(&subnet("::/0", None, None)).is_ok());
        assert!(Pool::new(&subnet("0.0.0.0/0", None, None)).is_ok());
    }

    #[test]
    fn bad_subnets() {
        assert!(Pool::new(&subnet("10.0.0.0/24", Some("10.0.1.1"), None)).is_err());
        assert!(Pool::new(&subnet("10.0.0.0/24", None, Some("10.0.0.0/16"))).is_err());
        assert!(Pool::new(&subnet("10.0.0.0/24", None, Some("fd00::/64"))).is_err());
    }

    #[test]
    fn private_ranges_differ() {
        let (one, two) = (private_v6("one"), private_v6("two"));
        assert!(one.base.to_string().starts_with("fd") && one.base.prefix_len() == 48);
        assert_eq!(one.base.trunc(), one.base);
        assert_ne!(one, two);
        let first = choose(&[one], &[]).unwrap();
        assert_eq!(first.prefix_len(), 64);
        assert_ne!(choose(&[one], &[first]).unwrap(), first);
    }

    #[test]
    fn chooses_what_nobody_uses() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(choose(&default_pools(), &[]).unwrap(), net("172.17.0.0/16"));
        let used = [net("172.17.3.0/24"), net("172.16.0.0/12")];
        assert_eq!(
            choose(&default_pools(), &used[..1]).unwrap(),
            net("172.18.0.0/16")
        );
        assert_eq!(
            choose(&default_pools(), &used).unwrap(),
            net("192.168.0.0/20")
        );
        assert!(choose(&default_pools(), &[net("0.0.0.0/0")]).is_err());
    }
}
