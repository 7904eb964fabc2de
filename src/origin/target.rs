//! Which addresses may be connected to.
//!
//! A gateway that fetches what its clients name would otherwise be a way into the network it stands in, to its own
//! admin listener and to a cloud's metadata service. The policy judges addresses, after resolution, each one that is
//! about to be connected to: a name that resolves to a private address is refused like the address itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Which addresses a connection may go to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum TargetPolicy {
    /// All: the operator named the origin.
    #[default]
    Any,
    /// Globally reachable unicast addresses, and those of the listed networks.
    Public {
        /// Networks allowed although they are not public.
        allowed: Vec<IpNet>,
    },
}

impl TargetPolicy {
    /// Whether `address` may be connected to.
    pub fn permits(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Public { allowed } => {
                let address = address.to_canonical();
                public(address) || allowed.iter().any(|network| network.contains(&address))
            }
        }
    }
}

/// Whether the address is a globally reachable unicast one (IANA special-purpose registries).
fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => public_v4(address),
        IpAddr::V6(address) => public_v6(address),
    }
}

fn public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224.., ..)
    );
    !special
}

/// Only `2000::/3` is handed out as global unicast; what tunnels or translates to IPv4 is judged by that address.
fn public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => public_v4(embedded(high, low)),
        [0x2002, high, low, ..] => public_v4(embedded(high, low)),
        // Teredo, ORCHID, benchmarking and the other protocol assignments of `2001::/23`; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &TargetPolicy, address: &str) -> bool {
        policy.permits(address.parse().expect("a valid address"))
    }

    #[test]
    fn special_addresses_are_refused() {
        let policy = TargetPolicy::Public { allowed: Vec::new() };
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!permits(&policy, address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_permitted() {
        let policy = TargetPolicy::Public { allowed: Vec::new() };
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(permits(&policy, address), "{address}");
        }
    }

    #[test]
    fn listed_networks_and_any_are_permitted() {
        let allowed = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let policy = TargetPolicy::Public { allowed };
        assert!(permits(&policy, "10.1.2.3") && permits(&policy, "::ffff:10.1.2.3") && permits(&policy, "fd00::1"));
        assert!(!permits(&policy, "10.2.0.1") && !permits(&policy, "127.0.0.1"));
        assert!(permits(&TargetPolicy::Any, "169.254.169.254"));
    }
}
