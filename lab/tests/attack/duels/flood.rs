// SPDX-License-Identifier: Apache-2.0
//! More flows than the table has room for, while a victim waits on a connection for what its server will say.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use frames::{Packet, SYN, Transport};
use lab::clock;
use lab::wire::Wire;

use crate::scene::{FAMILIES, Scene};

pub(crate) const NAME: &str = "11 a flood of new flows";
/// Of each family and protocol. One flow is two entries of a table of 131,072.
const FLOWS: u32 = 60_000;
const LONGEST: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of a victim on which nothing is said.
#[derive(Debug)]
pub(crate) struct Idle {
    all: Vec<(String, TcpStream, TcpStream)>,
}

impl Idle {
    pub(crate) fn begin(scene: &Scene) -> Result<Self> {
        let mut all = Vec::new();
        for client in scene.victims() {
            for (server, port) in [(&scene.friend, 9500), (&scene.stranger, 9501)] {
                let listener = server.netns.listen(port)?;
                for family in FAMILIES {
                    let to = SocketAddr::new(server.addresses[family], port);
                    let stream = client.netns.connect(to)?;
                    let (peer, _) = listener.accept()?;
                    all.push((format!("an idle connection of {} to {}, {to}", client.name, server.name), stream, peer));
                }
            }
        }
        Ok(Self { all })
    }

    /// What does not hear its server after all.
    pub(crate) fn finish(mut self) -> Vec<String> {
        // All servers say something before anybody listens: those that are not heard take their time together.
        let said: Vec<_> = self.all.iter_mut().map(|(_, _, server)| server.write_all(b"at last!")).collect();
        let end = clock::now() + PATIENCE;
        let mut failures = Vec::new();
        for ((what, mut client, _server), said) in self.all.into_iter().zip(said) {
            let left = end.saturating_duration_since(clock::now()).max(Duration::from_millis(100));
            let heard = said.and_then(|()| {
                client.set_read_timeout(Some(left))?;
                client.read_exact(&mut [0; 8])
            });
            if let Err(error) = heard {
                failures.push(format!("{what} does not hear its server any more: {error}"));
            }
        }
        failures
    }
}

/// Sends the flood; answers with how many flows it was.
pub(crate) fn flood(scene: &Scene) -> Result<u32> {
    let wire = Wire::sending(&scene.attacker.netns, "eth0")?;
    let end = clock::now() + LONGEST;
    let mut sent = 0;
    for number in 0..FLOWS {
        // Many addresses of the world, where nobody is (RFC 2544, RFC 3849).
        let four = IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 | number));
        let six = IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_000f << 80 | u128::from(number)));
        for (family, dst) in FAMILIES.into_iter().zip([four, six]) {
            for transport in
                [Transport::Tcp { sport: 43_000, dport: 80, flags: SYN }, Transport::Udp { sport: 43_000, dport: 80 }]
            {
                let packet = Packet::new(scene.attacker.addresses[family], dst, transport).payload(&[]);
                sent += u32::from(wire.send(&scene.attacker.sends(&packet)).is_ok());
            }
        }
        if clock::now() >= end {
            break;
        }
    }
    Ok(sent)
}
