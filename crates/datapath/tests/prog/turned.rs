// SPDX-License-Identifier: Apache-2.0
//! Who opened a connection stays who did, and is asked who they are: the other end does not turn it round.

use abi::DropReason;
use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::flow::proto;
use abi::policy::INGRESS;
use datapath::bpf::Place;

use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::state::{connect, forbid_all, segment};
use crate::world::{World, tuple};

/// The server opens a connection of its own on the ends of its client's, which it may: the client's would be answers to it, and would no more be
/// asked what they are allowed.
#[test]
fn a_server_does_not_make_its_clients_connection_its_own() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (request, push) = (segment((f.a, 1000), (f.b, 80), ACK), segment((f.b, 80), (f.a, 1000), ACK));
        let turn = segment((f.b, 80), (f.a, 1000), SYN);
        let reset = segment((f.b, 80), (f.a, 1000), RST);
        for (answered, resets, cut_before) in
            [(false, false, false), (false, true, false), (true, false, false), (true, false, true)]
        {
            world.reset();
            world.set_pod(&b, INGRESS_ENFORCED);
            world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 80), false);
            if answered {
                connect(world, f);
            } else {
                world.leaves(&a, &segment((f.a, 1000), (f.b, 80), SYN)).redirected();
            }
            if resets {
                world.leaves(&b, &reset).redirected();
            }
            if !cut_before {
                world.leaves(&b, &turn).redirected();
            }
            forbid_all(world, b.id);
            if cut_before {
                world.leaves(&a, &request).dropped(DropReason::PolicyDenied);
            }
            // By itself it is allowed.
            world.leaves(&b, &turn).redirected();
            world.leaves(&a, &request).dropped(DropReason::PolicyDenied);
            world.leaves(&b, &push).dropped(DropReason::PolicyDenied);
        }
    });
}

/// Whose opener has said goodbye is over for them.
#[test]
fn the_other_end_opens_a_connection_on_the_ports_of_one_that_is_over() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        for end in [FIN | ACK, RST] {
            world.clear_flows();
            connect(world, f);
            world.leaves(&a, &segment((f.a, 1000), (f.b, 80), end)).redirected();
            world.leaves(&b, &segment((f.b, 80), (f.a, 1000), SYN)).redirected();
            assert!(world.flow(&tuple((f.b, 80), (f.a, 1000), proto::TCP)).is_some());
        }
    });
}

/// What the stack forwards for a pod stands on who the pod is, whatever address it has by then.
#[test]
fn a_pod_that_lost_its_identity_is_cut_off_behind_the_nodes_address() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        for server_speaks in [false, true] {
            world.reset();
            world.set_pod(&b, INGRESS_ENFORCED);
            world.add_rule((&b, INGRESS), a.identity, (proto::UDP, 53), false);
            let request = Packet::udp((f.node, 1000), (f.b, 53));
            let place = Place { ifindex: b.ifindex, arrived_by: a.ifindex, ..Place::default() };
            world.forwarded(place, &request.bytes()).passed();
            let mut other = a;
            other.identity = 999;
            world.set_pod(&other, 0);
            world.epochs.bump_endpoint(a.id).unwrap();
            world.epochs.bump_peer(f.a).unwrap();
            if server_speaks {
                world.leaves(&b, &request.clone().reply().bytes()).dropped(DropReason::PolicyDenied);
            }
            world.forwarded(place, &request.bytes()).dropped(DropReason::PolicyDenied);
        }
    });
}
