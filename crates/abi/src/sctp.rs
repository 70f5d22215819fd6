// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The checksum of SCTP (RFC 9260, appendix A): CRC-32C over the whole packet. It is linear, so that a change of a few bytes is a
//! change of the checksum that depends on nothing but those bytes and on how many follow them.

/// The polynomial of CRC-32C, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// `x^(8 * 2^k)` modulo the polynomial: what `2^k` zero bytes do to a remainder.
const SHIFTS: [u32; 16] = shifts();

/// The product of two remainders, bits reversed as CRC-32C has them.
#[inline(always)]
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & all_if(a >> (31 - bit));
        b = half(b);
        bit += 1;
    }
    product
}

/// One bit less.
#[inline(always)]
const fn half(remainder: u32) -> u32 {
    (remainder >> 1) ^ (POLYNOMIAL & all_if(remainder))
}

/// All bits, if the lowest is set. Not to be turned into a branch: the kernel's verifier would walk through every combination.
#[inline(always)]
const fn all_if(bits: u32) -> u32 {
    core::hint::black_box(0u32.wrapping_sub(bits & 1))
}

const fn shifts() -> [u32; 16] {
    // x^8: the bit of x^0 is the highest.
    let mut table = [1 << (31 - 8); 16];
    let mut k = 1;
    while k < 16 {
        table[k] = multiply(table[k - 1], table[k - 1]);
        k += 1;
    }
    table
}

/// What is to be XORed onto the checksum, as it lies in the packet, when four bytes change by `difference` (the XOR of old and new, as
/// they lie in the packet) and `following` bytes come after them.
#[inline(always)]
#[must_use]
pub const fn difference(difference: u32, following: u16) -> u32 {
    // Four bytes of the message, then zeros: the remainder of the four, shifted.
    let mut remainder = u32::from_le(difference);
    let mut bit = 0;
    while bit < 32 {
        remainder = half(remainder);
        bit += 1;
    }
    let mut k = 0;
    while k < 16 {
        let shifted = multiply(remainder, SHIFTS[k]);
        let chosen = all_if(following as u32 >> k);
        remainder = remainder & !chosen | shifted & chosen;
        k += 1;
    }
    remainder.to_le()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// CRC-32C, bit by bit, as it lies in the packet.
    fn checksum(bytes: &[u8]) -> u32 {
        let mut remainder = !0u32;
        for byte in bytes {
            remainder ^= u32::from(*byte);
            for _ in 0..8 {
                remainder = if remainder & 1 != 0 { remainder >> 1 ^ POLYNOMIAL } else { remainder >> 1 };
            }
        }
        (!remainder).to_le()
    }

    #[test]
    fn the_checksum_of_the_standards_example() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(checksum(&[0; 32]).to_ne_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }

    proptest! {
        #[test]
        fn a_change_of_ports_changes_the_checksum_as_if_it_were_made_anew(
            mut packet in prop::collection::vec(any::<u8>(), 12..2000),
            ports in any::<[u8; 4]>(),
        ) {
            // The field counts as zero.
            packet[8..12].fill(0);
            let before = checksum(&packet);
            let old = u32::from_ne_bytes(packet[..4].try_into().unwrap());
            packet[..4].copy_from_slice(&ports);
            let change = difference(old ^ u32::from_ne_bytes(ports), (packet.len() - 4) as u16);
            prop_assert_eq!(before ^ change, checksum(&packet));
        }
    }
}
