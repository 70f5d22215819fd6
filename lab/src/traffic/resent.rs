// SPDX-License-Identifier: Apache-2.0
//! Segments of TCP that were lost, as the kernel of each end counts them.

use anyhow::{Result, ensure};

use crate::netns::Netns;

/// Segments that may be sent again without a loss: a busy machine answers late, and of what opens or ends a connection no peer tells that it came twice. While
/// programs let nothing pass, each of many connections sends again.
const FEW: u64 = 5;

/// What of the connections of some namespaces has been lost so far.
#[derive(Debug)]
pub struct Resent {
    of: Vec<(String, Netns, u64)>,
}

impl Resent {
    /// Counts from now on.
    pub fn start(namespaces: impl IntoIterator<Item = (String, Netns)>) -> Result<Self> {
        let counted = |(name, netns): (String, Netns)| {
            let before = lost(&netns)?;
            Ok((name, netns, before))
        };
        Ok(Self { of: namespaces.into_iter().map(counted).collect::<Result<_>>()? })
    }

    /// The error says who had to send a segment again because it was lost.
    pub fn finish(self) -> Result<()> {
        for (name, netns, before) in self.of {
            let now = lost(&netns)?;
            ensure!(now <= before + FEW, "{name} sent {} segments again that were lost", now - before);
        }
        Ok(())
    }
}

/// Segments that were sent again, without those that had arrived the first time: on a busy machine an answer may be late, and then the peer tells of what came
/// twice (RFC 2883).
fn lost(of: &Netns) -> Result<u64> {
    let sent = of.counter("snmp", "Tcp:", "RetransSegs")?;
    let twice =
        of.counter("netstat", "TcpExt:", "TCPDSACKRecv")? + of.counter("netstat", "TcpExt:", "TCPDSACKOfoRecv")?;
    Ok(sent.saturating_sub(twice))
}
