// SPDX-License-Identifier: Apache-2.0
//! What a pod's kernel sends to its link unprompted when an address or interface comes up. The programs have no use for
//! it and drop it; but nothing is wrong, and shown as drops it would hide those that matter. It is counted instead.

use abi::DropReason;
use abi::event::{Event, kind};
use abi::flow::proto;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::net::IpAddr;

/// Reports of multicast listeners (RFC 2710, RFC 3810), router solicitation and duplicate address detection (RFC 4861, RFC 4862).
const TYPES: [u8; 5] = [131, 132, 133, 135, 143];

/// Counts it. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Chatter(Counter);

impl Chatter {
    /// Registers the metric.
    pub fn register(&self, registry: &mut Registry) {
        let help =
            "Messages of pods to their link (duplicate address detection, router solicitation, multicast listeners)";
        registry.register("hubble_link_local_messages", help, self.0.clone());
    }

    /// Counts the event if it is chatter; returns whether it is.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        let chatter = is_chatter(event);
        if chatter {
            self.0.inc();
        }
        chatter
    }
}

fn is_chatter(event: &Event) -> bool {
    let to_the_link = match event.dst.into() {
        // ff02::/16
        IpAddr::V6(ip) => matches!(ip.octets(), [0xff, scope, ..] if scope & 0x0f == 2),
        IpAddr::V4(_) => false,
    };
    event.kind == kind::DROP
        && event.reason == DropReason::ForbiddenIcmpv6Message.code()
        && event.proto == proto::ICMPV6
        && to_the_link
        && TYPES.contains(&event.tcp_flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::addr;

    fn solicitation() -> Event {
        Event {
            src: addr("::"),
            dst: addr("ff02::1:ff00:10"),
            kind: kind::DROP,
            reason: DropReason::ForbiddenIcmpv6Message.code(),
            proto: proto::ICMPV6,
            tcp_flags: 135,
            ..Event::default()
        }
    }

    #[test]
    fn what_a_kernel_says_to_its_link_is_counted() {
        let chatter = Chatter::default();
        for kind in TYPES {
            assert!(chatter.takes(&Event { tcp_flags: kind, ..solicitation() }), "{kind}");
        }
        assert_eq!(chatter.0.get(), 5);
    }

    #[test]
    fn any_other_drop_is_a_drop() {
        let chatter = Chatter::default();
        for event in [
            // An unsolicited router advertisement, and a redirect.
            Event { tcp_flags: 134, ..solicitation() },
            Event { tcp_flags: 137, ..solicitation() },
            Event { dst: addr("fd00::10"), ..solicitation() },
            Event { dst: addr("ff05::2"), ..solicitation() },
            Event { reason: DropReason::PolicyDenied.code(), ..solicitation() },
            Event { proto: proto::UDP, ..solicitation() },
            Event { kind: kind::TRACE, ..solicitation() },
        ] {
            assert!(!chatter.takes(&event), "{event:?}");
        }
        assert_eq!(chatter.0.get(), 0);
    }
}
