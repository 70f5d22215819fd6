// SPDX-License-Identifier: Apache-2.0
//! The services that there are.

use abi::lb::flags::{EXPOSED, LOAD_BALANCER, MEMBERS, NODE_PORT};

use super::steps::Who;
use super::talk::Proto;

/// A service at one of its frontends.
pub(crate) struct Offer {
    pub(crate) proto: Proto,
    pub(crate) at: (Who, u16),
    /// Bits of `abi::lb::flags` that it always has.
    pub(crate) flags: u32,
    /// The backends that it may have.
    pub(crate) backends: &'static [(Who, u16)],
}

const fn offer(proto: Proto, at: (Who, u16), flags: u32, backends: &'static [(Who, u16)]) -> Offer {
    Offer { proto, at, flags, backends }
}

use Proto::{Tcp, Udp};
use Who::{Balancer, Node, Pod, Remote, Service, Third};

/// A port of the node, and an address of a load balancer.
const PORT: u32 = NODE_PORT | EXPOSED | MEMBERS;
const ADDRESS: u32 = LOAD_BALANCER | EXPOSED | MEMBERS;

/// The first that are for clients outside, too.
pub(crate) const EXPOSED_FROM: usize = 4;

pub(crate) const OFFERS: [Offer; 10] = [
    offer(Tcp, (Service, 80), 0, &[(Pod(1), 8080), (Remote, 8080)]),
    offer(Tcp, (Service, 81), 0, &[(Pod(1), 8080), (Pod(2), 8080)]),
    offer(Udp, (Service, 7946), 0, &[(Pod(1), 7946), (Remote, 7946)]),
    offer(Udp, (Service, 7947), 0, &[(Pod(0), 7946)]),
    offer(Tcp, (Node, 30080), PORT, &[(Pod(1), 8080), (Remote, 8080)]),
    offer(Tcp, (Balancer, 80), ADDRESS, &[(Pod(1), 8080), (Remote, 8080), (Third, 8080)]),
    offer(Tcp, (Balancer, 81), ADDRESS, &[(Pod(1), 8080), (Pod(2), 8080)]),
    offer(Udp, (Node, 30053), PORT, &[(Pod(1), 7946), (Remote, 7946)]),
    offer(Udp, (Balancer, 53), ADDRESS, &[(Pod(1), 7946), (Remote, 7946), (Third, 7946)]),
    offer(Udp, (Balancer, 54), ADDRESS, &[(Pod(1), 7946), (Pod(0), 7946)]),
];
