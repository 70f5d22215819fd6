// SPDX-License-Identifier: Apache-2.0
//! Keeps connections of the node's own programs off the node ports.

use crate::Config;
use crate::config::PortRange;
use datapath::sysctl;

/// Ports that the kernel gives to connections which name none.
const EPHEMERAL: &str = "net/ipv4/ip_local_port_range";
/// Those of them that it does not give.
const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";

/// Reserves the node ports, unless the kernel gives none of them to connections: the answers to one that had a node port would go to a
/// Service. Programs that name such a port are refused by their `bind`; these name none.
pub(crate) fn reserve(config: &Config) -> datapath::Result<()> {
    if !config.exposes() || !config.reserve_node_ports {
        return Ok(());
    }
    let (ephemeral, reserved) = (sysctl::read(EPHEMERAL)?, sysctl::read(RESERVED)?);
    match with(&reserved, &ephemeral, config.node_ports) {
        Some(all) => sysctl::write(RESERVED, &all),
        None => Ok(()),
    }
}

/// `reserved` with the node ports, if one of these is `ephemeral` and not reserved.
fn with(reserved: &str, ephemeral: &str, node_ports: PortRange) -> Option<String> {
    let (first, last) = ports(ephemeral.split_whitespace())?;
    let known: Vec<_> = reserved.split(',').filter_map(|part| ports(part.trim().splitn(2, '-'))).collect();
    let is_given = |port: &u16| !known.iter().any(|(first, last)| (first..=last).contains(&port));
    (node_ports.first.max(first)..=node_ports.last.min(last)).find(is_given)?;
    let own = format!("{}-{}", node_ports.first, node_ports.last);
    Some(if reserved.is_empty() { own } else { format!("{reserved},{own}") })
}

/// One port, or the first and the last of some.
fn ports<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<(u16, u16)> {
    let first = parts.next()?.parse().ok()?;
    let last = parts.next().map_or(Some(first), |last| last.parse().ok())?;
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use super::{PortRange, with};

    const LINUX: &str = "32768\t60999";

    fn after(reserved: &str, first: u16, last: u16) -> Option<String> {
        with(reserved, LINUX, PortRange { first, last })
    }

    #[test]
    fn node_ports_that_connections_could_take_are_reserved() {
        assert_eq!(after("", 30_000, 32_768).as_deref(), Some("30000-32768"));
        assert_eq!(after("", 60_999, 61_500).as_deref(), Some("60999-61500"));
        assert_eq!(after("8080,33000-40000", 30_000, 40_000).as_deref(), Some("8080,33000-40000,30000-40000"));
    }

    #[test]
    fn nothing_changes_where_none_can() {
        assert_eq!(after("", 30_000, 32_767), None);
        assert_eq!(after("", 61_000, 61_500), None);
        assert_eq!(after("32768-32770,32771", 30_000, 32_771), None);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        assert_eq!(with("", "", PortRange { first: 30_000, last: 40_000 }), None);
    }
}
