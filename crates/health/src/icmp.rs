// SPDX-License-Identifier: Apache-2.0
//! ICMP echo (RFC 792, RFC 4443): messages and one exchange. Any program may reply to an echo request, and a raw socket
//! sees others' exchanges too, so each exchange has its own number and token and accepts no other reply.

mod socket;

use socket::Socket;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Timeout for the reply to one request.
const WAIT: Duration = Duration::from_secs(1);
/// Overall timeout.
const TOTAL: Duration = Duration::from_secs(10);

const TIMED_OUT: &str = "Connection timed out";

/// Sends up to that many requests until one is answered; returns its round-trip time, or why there was no reply.
pub(crate) async fn ping(address: IpAddr, requests: u32) -> Result<Duration, String> {
    let socket = Socket::open(address).map_err(|error| crate::reason(&error))?;
    let echo = Echo::random(address.is_ipv6());
    let wait = WAIT.min(TOTAL / requests.max(1));
    let mut sent: Vec<Instant> = Vec::new();
    let mut why = TIMED_OUT.to_owned();
    for sequence in (0..=u16::MAX).take(requests as usize) {
        let now = Instant::now();
        sent.push(now);
        let exchange = async {
            socket.send(&echo.request(sequence)).await?;
            socket.reply(&echo).await
        };
        match timeout_at(now + wait, exchange).await {
            // Perhaps the reply to an earlier request that took longer than we waited.
            Ok(Ok(sequence)) => {
                let since = sent.get(usize::from(sequence)).unwrap_or(&now);
                return Ok(since.elapsed());
            }
            Ok(Err(error)) => {
                why = crate::reason(&error);
                // What cannot be sent now because the neighbour is unresolved may work a moment later.
                sleep_until(now + wait).await;
            }
            Err(_) => {}
        }
    }
    Err(why)
}

const HEADER: usize = 8;
const TOKEN: usize = 16;
const V4: Kinds = Kinds { request: 8, reply: 0 };
const V6: Kinds = Kinds { request: 128, reply: 129 };

/// The types of the two messages.
struct Kinds {
    request: u8,
    reply: u8,
}

/// What the messages of an exchange share.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    v6: bool,
    id: u16,
    token: [u8; TOKEN],
}

impl Echo {
    fn random(v6: bool) -> Self {
        Self { v6, id: rand::random(), token: rand::random() }
    }

    const fn kinds(&self) -> Kinds {
        if self.v6 { V6 } else { V4 }
    }

    /// A request. The checksum of ICMPv6 covers addresses, and is left to the kernel.
    fn request(&self, sequence: u16) -> [u8; HEADER + TOKEN] {
        let mut message = [0; HEADER + TOKEN];
        message[0] = self.kinds().request;
        message[4..6].copy_from_slice(&self.id.to_be_bytes());
        message[6..8].copy_from_slice(&sequence.to_be_bytes());
        message[HEADER..].copy_from_slice(&self.token);
        if !self.v6 {
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        message
    }

    /// The sequence number of the request that a packet answers, if it is one of ours. Raw sockets deliver IPv4 packets
    /// with their header, IPv6 packets without.
    fn answered(&self, packet: &[u8]) -> Option<u16> {
        let message = if self.v6 { packet } else { packet.get(usize::from(packet.first()? & 0xf) * 4..)? };
        let (header, token) = message.split_at_checked(HEADER)?;
        let [kind, code, _, _, id_high, id_low, high, low] = *header else { return None };
        let ours = kind == self.kinds().reply
            && code == 0
            && u16::from_be_bytes([id_high, id_low]) == self.id
            && token == self.token;
        ours.then(|| u16::from_be_bytes([high, low]))
    }
}

/// Matches a packet against an exchange whose token nobody knows.
#[cfg(fuzzing)]
pub(crate) fn answered_by(v6: bool, packet: &[u8]) -> Option<u16> {
    Echo::random(v6).answered(packet)
}

/// The Internet checksum (RFC 1071) of a message of an even length.
fn checksum(message: &[u8]) -> u16 {
    let (words, _) = message.as_chunks::<2>();
    let sum = words.iter().fold(0_u32, |sum, word| sum + u32::from(u16::from_be_bytes(*word)));
    let folded = (sum >> 16) + (sum & 0xffff);
    let [_, _, high, low] = (!(folded + (folded >> 16))).to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(v6: bool) -> Echo {
        Echo { v6, id: 0x1234, token: *b"0123456789abcdef" }
    }

    /// A host's reply to a request.
    fn reply(echo: &Echo, sequence: u16) -> Vec<u8> {
        let mut message = echo.request(sequence).to_vec();
        message[0] = echo.kinds().reply;
        if echo.v6 { message } else { [&[0x45; 1], &[0; 19][..], &message].concat() }
    }

    #[test]
    fn a_request_has_type_number_token_and_a_right_checksum() {
        let message = echo(false).request(7);
        assert_eq!((message[0], message[1]), (8, 0));
        assert_eq!(message[4..8], [0x12, 0x34, 0, 7]);
        assert_eq!(message[8..], *b"0123456789abcdef");
        // Over a message with its checksum the sum is zero.
        assert_eq!(checksum(&message), 0);
        let message = echo(true).request(7);
        assert_eq!(message[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn a_reply_is_taken_for_the_request_that_it_answers() {
        for v6 in [false, true] {
            assert_eq!(echo(v6).answered(&reply(&echo(v6), 3)), Some(3));
        }
        // Options make the IPv4 header longer.
        let mut long = reply(&echo(false), 3);
        long[0] = 0x46;
        long.splice(20..20, [0; 4]);
        assert_eq!(echo(false).answered(&long), Some(3));
    }

    #[test]
    fn what_is_not_a_reply_to_us_is_passed_over() {
        for v6 in [false, true] {
            let ours = echo(v6);
            let other_id = Echo { id: 1, ..ours.clone() };
            let other_token = Echo { token: *b"0123456789abcdeg", ..ours.clone() };
            assert_eq!(ours.answered(&reply(&other_id, 3)), None);
            assert_eq!(ours.answered(&reply(&other_token, 3)), None);
            // Our own request, which the loopback device shows us.
            let offset = if v6 { 0 } else { 20 };
            let mut request = reply(&ours, 3);
            request[offset] = ours.kinds().request;
            assert_eq!(ours.answered(&request), None);
            let mut unreachable = reply(&ours, 3);
            unreachable[offset + 1] = 1;
            assert_eq!(ours.answered(&unreachable), None);
        }
    }

    #[test]
    fn no_packet_is_too_short_or_too_long() {
        for v6 in [false, true] {
            let whole = reply(&echo(v6), 3);
            for length in 0..whole.len() {
                assert_eq!(echo(v6).answered(&whole[..length]), None);
            }
            assert_eq!(echo(v6).answered(&[whole, vec![0]].concat()), None);
            assert_eq!(echo(v6).answered(&[0xff; 64]), None);
        }
    }
}
