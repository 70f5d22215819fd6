// SPDX-License-Identifier: Apache-2.0
//! The PROXY header, versions 1 and 2: who a connection is from, told by the load balancer before this proxy or to the backend after it.

use l7::ProxyProtocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[cfg(test)]
mod tests;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1, with its end of line.
const LONGEST_TEXT: usize = 107;
/// Longest header that is accepted; version 2 allows more, which nobody sends.
pub(crate) const LONGEST: usize = 16 + 4096;

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The client.
    pub(crate) client: SocketAddr,
    /// What it has connected to.
    pub(crate) local: SocketAddr,
}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its length in bytes.
    pub(crate) length: usize,
    /// What it says. Nothing: the connection is the load balancer's own, or of a kind that is not told of.
    pub(crate) peer: Option<Peer>,
}

/// What the bytes are no header for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a header; nothing if more bytes are needed.
pub(crate) fn decode(bytes: &[u8]) -> Option<Result<Header, Malformed>> {
    let shared = SIGNATURE.len().min(bytes.len());
    if bytes.get(..shared) == SIGNATURE.get(..shared) {
        return decode_binary(bytes);
    }
    decode_text(bytes)
}

fn decode_text(bytes: &[u8]) -> Option<Result<Header, Malformed>> {
    let shared = b"PROXY ".len().min(bytes.len());
    if bytes.get(..shared) != b"PROXY ".get(..shared) {
        return Some(Err(Malformed));
    }
    let seen = bytes.get(..LONGEST_TEXT.min(bytes.len())).unwrap_or_default();
    let Some(end) = seen.windows(2).position(|two| two == b"\r\n") else {
        return (seen.len() == LONGEST_TEXT).then_some(Err(Malformed));
    };
    let line = seen.get(..end).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    Some(text_line(line).map(|peer| Header { length: end + 2, peer }))
}

fn text_line(line: &str) -> Result<Option<Peer>, Malformed> {
    let words: Vec<&str> = line.split(' ').collect();
    let (family, addresses) = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", family, rest @ ..] => (*family, rest),
        _ => return Err(Malformed),
    };
    let [source, target, source_port, target_port] = addresses else { return Err(Malformed) };
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        let address: IpAddr = text.parse().map_err(|_| Malformed)?;
        match (family, address) {
            ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)) => Ok(address),
            _ => Err(Malformed),
        }
    };
    let port = |text: &str| -> Result<u16, Malformed> {
        let number = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if number { text.parse().map_err(|_| Malformed) } else { Err(Malformed) }
    };
    Ok(Some(Peer {
        client: SocketAddr::new(address(source)?, port(source_port)?),
        local: SocketAddr::new(address(target)?, port(target_port)?),
    }))
}

fn decode_binary(bytes: &[u8]) -> Option<Result<Header, Malformed>> {
    let (fixed, rest) = bytes.split_first_chunk::<16>()?;
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || command & 0xf > 1 || 16 + length > LONGEST {
        return Some(Err(Malformed));
    }
    let told = rest.get(..length)?;
    let peer = match (command & 0xf, family) {
        (0, _) => Ok(None),
        (_, 0x11) => addresses::<4>(told).map(Some),
        (_, 0x21) => addresses::<16>(told).map(Some),
        _ => Ok(None),
    };
    Some(peer.map(|peer| Header { length: 16 + length, peer }))
}

fn addresses<const N: usize>(told: &[u8]) -> Result<Peer, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = told.split_first_chunk::<N>().ok_or(Malformed)?;
    let (target, rest) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    let ([a, b, c, d], _) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    Ok(Peer {
        client: SocketAddr::new((*source).into(), u16::from_be_bytes([*a, *b])),
        local: SocketAddr::new((*target).into(), u16::from_be_bytes([*c, *d])),
    })
}

impl Peer {
    /// The header that tells of it.
    pub(crate) fn encode(&self, version: ProxyProtocol) -> Vec<u8> {
        let (client, local) = (self.client.ip().to_canonical(), self.local.ip().to_canonical());
        let addresses = match (client, local) {
            (IpAddr::V4(client), IpAddr::V4(local)) => Addresses::V4(client, local),
            (client, local) => Addresses::V6(wide(client), wide(local)),
        };
        match version {
            ProxyProtocol::V1 => {
                let ports = format!("{} {}", self.client.port(), self.local.port());
                match addresses {
                    Addresses::V4(client, local) => format!("PROXY TCP4 {client} {local} {ports}\r\n"),
                    Addresses::V6(client, local) => format!("PROXY TCP6 {client} {local} {ports}\r\n"),
                }
                .into_bytes()
            }
            ProxyProtocol::V2 => self.encode_binary(&addresses),
        }
    }

    fn encode_binary(&self, addresses: &Addresses) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        match addresses {
            Addresses::V4(client, local) => {
                bytes.extend_from_slice(&[0x21, 0x11, 0, 12]);
                bytes.extend_from_slice(&client.octets());
                bytes.extend_from_slice(&local.octets());
            }
            Addresses::V6(client, local) => {
                bytes.extend_from_slice(&[0x21, 0x21, 0, 36]);
                bytes.extend_from_slice(&client.octets());
                bytes.extend_from_slice(&local.octets());
            }
        }
        bytes.extend_from_slice(&self.client.port().to_be_bytes());
        bytes.extend_from_slice(&self.local.port().to_be_bytes());
        bytes
    }
}

enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
