// SPDX-License-Identifier: Apache-2.0
//! What clients come back to their backend with: its address, sealed with a key that all proxies of the cluster have. Nobody else can read
//! one or make one, and it needs no memory here.
//!
//! A token is a tag of the address, and the address hidden by what follows from that tag (the order of RFC 5297).

use l7::TokenKey;
use rand::Rng;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

const BLOCK: usize = 64;
const TAG: usize = 12;
const PORT: usize = 2;

/// A key, ready for use.
#[derive(Clone)]
pub(crate) struct Tokens {
    inner: Sha256,
    outer: Sha256,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Those of a key. Without one they are this process's own, so clients of others are sent anew.
    pub(crate) fn new(key: Option<&TokenKey>) -> Self {
        static OWN: OnceLock<[u8; 32]> = OnceLock::new();
        let key = key.map_or_else(|| OWN.get_or_init(|| rand::rng().random()), TokenKey::expose);
        let padded = |byte: u8| {
            let mut block = [byte; BLOCK];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            Sha256::new_with_prefix(block)
        };
        Self { inner: padded(0x36), outer: padded(0x5c) }
    }

    /// HMAC with SHA-256 (RFC 2104).
    fn mac(&self, purpose: u8, text: &[u8]) -> [u8; 32] {
        let inner = self.inner.clone().chain_update([purpose]).chain_update(text).finalize();
        self.outer.clone().chain_update(inner).finalize().into()
    }

    /// The token of a backend.
    pub(crate) fn seal(&self, backend: SocketAddr) -> String {
        let text = bytes(backend);
        let tag = self.tag(&text);
        tag.iter().chain(&self.hide(&tag, &text)).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The backend of a token, if it is one.
    pub(crate) fn open(&self, token: &str) -> Option<SocketAddr> {
        let sealed = unhex(token)?;
        let (tag, hidden) = sealed.split_at_checked(TAG)?;
        let text = self.hide(tag, hidden);
        (self.tag(&text) == tag).then(|| address(&text)).flatten()
    }

    fn tag(&self, text: &[u8]) -> [u8; TAG] {
        self.mac(0, text).first_chunk().copied().unwrap_or_default()
    }

    /// Twice is nothing.
    fn hide(&self, tag: &[u8], text: &[u8]) -> Vec<u8> {
        text.iter().zip(self.mac(1, tag)).map(|(byte, mask)| byte ^ mask).collect()
    }
}

fn bytes(backend: SocketAddr) -> Vec<u8> {
    let port = backend.port().to_be_bytes();
    match backend.ip() {
        IpAddr::V4(ip) => ip.octets().into_iter().chain(port).collect(),
        IpAddr::V6(ip) => ip.octets().into_iter().chain(port).collect(),
    }
}

fn address(text: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = text.split_at_checked(text.len().checked_sub(PORT)?)?;
    let ip = <[u8; 4]>::try_from(ip).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(ip).map(IpAddr::from)).ok()?;
    Some(SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?)))
}

/// Bytes of lower case digits, no more than a token has.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 2 * (TAG + 16 + PORT) {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let byte = |pair: &[u8]| {
        let [high, low] = pair else { return None };
        u8::try_from(digit(high)? << 4 | digit(low)?).ok()
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKENDS: [&str; 2] = ["10.1.2.3:8080", "[fd00::1:2]:443"];

    fn tokens(key: u8) -> Tokens {
        Tokens::new(Some(&TokenKey::from([key; 32])))
    }

    #[test]
    fn a_token_of_one_proxy_is_anothers_with_the_same_key_and_nobody_elses() {
        for backend in BACKENDS.map(|backend| backend.parse::<SocketAddr>().unwrap()) {
            let token = tokens(1).seal(backend);
            assert_eq!(tokens(1).open(&token), Some(backend));
            assert_eq!(tokens(2).open(&token), None);
            assert_ne!(tokens(2).seal(backend), token, "who has no key cannot try addresses");
            assert_eq!(Tokens::new(None).open(&Tokens::new(None).seal(backend)), Some(backend));
            assert_eq!(Tokens::new(None).open(&token), None);
        }
    }

    #[test]
    fn neighbours_have_nothing_in_common() {
        let of = |port: u16| tokens(1).seal(SocketAddr::from(([10, 1, 2, 3], port)));
        let (one, other) = (of(8080), of(8081));
        let same = one.bytes().zip(other.bytes()).filter(|(a, b)| a == b).count();
        assert!(same < one.len() / 2, "{one} {other}");
    }

    #[test]
    fn what_is_no_token_is_none() {
        let token = tokens(1).seal("10.1.2.3:8080".parse().unwrap());
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(tokens(1).open(std::str::from_utf8(&changed).unwrap()), None, "{place}");
        }
        let long = "0".repeat(1 << 20);
        for text in ["", "0", "zz", "é0", &token.to_uppercase(), &token[2..], &format!("{token}00"), &long] {
            assert_eq!(tokens(1).open(text), None, "{text:.40}");
        }
    }

    #[test]
    fn the_code_is_that_of_rfc_4231() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = Tokens::new(Some(&TokenKey::from(key)));
        // Its second case, of which the first byte is the purpose here.
        let code = mac.mac(b'w', b"hat do ya want for nothing?");
        assert_eq!(code[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }
}
