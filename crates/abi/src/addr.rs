// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! One address form for both families, so that flow, service and policy code exists once.

/// An IPv6 address, or an IPv4 address in IPv4-mapped form (RFC 4291, 2.5.5.2), as sixteen bytes in network order.
///
/// Held as two words of those bytes: comparing them is two instructions, where a byte array would call `memcmp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    /// The first eight bytes, as they lie in memory.
    pub hi: u64,
    /// The last eight bytes, as they lie in memory.
    pub lo: u64,
}

const _: () = assert!(core::mem::size_of::<Addr>() == 16);

// SAFETY: two integers without padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Addr {}

impl Addr {
    /// The unspecified address `::`, which also stands for "none".
    pub const NONE: Self = Self { hi: 0, lo: 0 };

    /// From an IPv4 address whose four bytes lie in memory in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_be(v4: u32) -> Self {
        Self { hi: 0, lo: Self::mapped_lo(v4) }
    }

    /// From the sixteen bytes of an IPv6 address, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self { hi: u64::from_ne_bytes([a, b, c, d, e, f, g, h]), lo: u64::from_ne_bytes([i, j, k, l, m, n, o, p]) }
    }

    /// The sixteen bytes in network order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.hi.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.lo.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether this is an IPv4 address in mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.hi == 0 && (self.lo & Self::mapped_lo(0) == Self::mapped_lo(0)) && (self.lo & Self::ZEROS == 0)
    }

    /// The IPv4 address as it lies in memory in network order; meaningless for IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v4_be(self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.lo.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    /// Whether this is "none".
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.hi == 0 && self.lo == 0
    }

    /// The two bytes that are zero in a mapped address, as a mask over `lo`.
    const ZEROS: u64 = u64::from_ne_bytes([0xff, 0xff, 0, 0, 0, 0, 0, 0]);

    #[inline(always)]
    const fn mapped_lo(v4: u32) -> u64 {
        let [a, b, c, d] = v4.to_ne_bytes();
        u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])
    }
}

#[cfg(feature = "user")]
mod user {
    use super::Addr;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    impl From<Ipv4Addr> for Addr {
        fn from(v4: Ipv4Addr) -> Self {
            Self::from_v4_be(u32::from_ne_bytes(v4.octets()))
        }
    }

    impl From<Ipv6Addr> for Addr {
        fn from(v6: Ipv6Addr) -> Self {
            Self::from_v6(v6.octets())
        }
    }

    impl From<IpAddr> for Addr {
        fn from(ip: IpAddr) -> Self {
            match ip {
                IpAddr::V4(v4) => v4.into(),
                IpAddr::V6(v6) => v6.into(),
            }
        }
    }

    impl From<Addr> for IpAddr {
        fn from(addr: Addr) -> Self {
            if addr.is_v4() {
                Self::V4(Ipv4Addr::from(addr.v4_be().to_ne_bytes()))
            } else {
                Self::V6(Ipv6Addr::from(addr.octets()))
            }
        }
    }

    impl core::fmt::Display for Addr {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            IpAddr::from(*self).fmt(f)
        }
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::Addr;
    use core::net::IpAddr;

    #[test]
    fn an_address_survives_the_round_trip_and_knows_its_family() {
        // Each of the last ones differs in one bit from an IPv4 address in its mapped form.
        for text in [
            "10.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "fd00::1",
            "2001:db8::ffff:a00:1",
            "0:0:0:1:0:ffff:a00:1",
            "8000::ffff:a00:1",
            "::1:ffff:a00:1",
            "::8000:ffff:a00:1",
            "::fffe:a00:1",
            "::7fff:a00:1",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            let addr = Addr::from(ip);
            assert_eq!(addr.is_v4(), ip.is_ipv4(), "{text}");
            assert_eq!(IpAddr::from(addr), ip, "{text}");
            assert_eq!(addr.to_string(), ip.to_string());
            assert_eq!(addr.is_none(), text == "::", "{text}");
        }
        assert!(!Addr { hi: 1, lo: 0 }.is_none());
    }
}
