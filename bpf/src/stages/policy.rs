// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The policy verdict: two longest-prefix lookups per side, one decision (`abi::policy::decide`, which the oracle in user space
//! runs as well).

use super::commit;
use crate::maps;
use crate::pkt::Pkt;
use crate::scratch::{Party, Scratch};
use crate::verdict::{Stage, Verdict, drop};
use abi::endpoint::flags;
use abi::event::{self, outcome};
use abi::policy::{EGRESS, INGRESS, PREFIX_PORT, PolicyKey, decide};
use abi::tuple::is_icmp;
use abi::{DropReason, identity};
use aya_ebpf::maps::lpm_trie::Key;

/// Asks the egress policy of a local opener, then the ingress policy of a local target.
#[inline(never)]
pub fn check(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    // Without its policy a pod gets nothing, whoever sends.
    if (scratch.target.flags | scratch.opener.flags) & flags::NOT_READY != 0 {
        return drop(DropReason::DropEpNotReady);
    }
    // Nobody is asked whether a pod may speak to itself: without a service it would not be seen.
    if scratch.comes_back() {
        return Ok(());
    }
    if scratch.opener.flags & flags::EGRESS_ENFORCED != 0 {
        let key = question(scratch, scratch.opener.policy, EGRESS, scratch.target.identity);
        ask(&key, &mut scratch.egress);
        if scratch.egress.outcome == outcome::DENY {
            return Err(refused(pkt, scratch, scratch.egress.match_type));
        }
        scratch.flow.provenance = scratch.egress.provenance;
    }
    if scratch.target.flags & flags::INGRESS_ENFORCED != 0 {
        let key = question(scratch, scratch.target.policy, INGRESS, scratch.opener.identity);
        ask(&key, &mut scratch.ingress);
        if scratch.ingress.outcome == outcome::DENY {
            return Err(refused(pkt, scratch, scratch.ingress.match_type));
        }
        scratch.flow.provenance = scratch.ingress.provenance;
    }
    Ok(())
}

/// Whether the opener may speak to the node as well. If not, the node is the target that was refused.
#[inline(never)]
pub fn lets_to_node(scratch: &mut Scratch) -> bool {
    if scratch.opener.flags & flags::EGRESS_ENFORCED == 0 {
        return true;
    }
    let key = question(scratch, scratch.opener.policy, EGRESS, identity::HOST);
    let mut verdict = event::Verdict { provenance: 0, outcome: 0, match_type: 0, pad: 0 };
    ask(&key, &mut verdict);
    if verdict.outcome != outcome::DENY {
        return true;
    }
    scratch.target = Party::remote(identity::HOST);
    scratch.egress = verdict;
    false
}

/// What a policy is asked about a peer. For ICMP it is the type that policy looks at.
#[inline(always)]
fn question(scratch: &Scratch, policy: u32, direction: u8, identity: u32) -> PolicyKey {
    let proto = scratch.tuple.proto;
    let port = if is_icmp(proto) { (scratch.icmp_type as u16).to_be() } else { scratch.dport };
    PolicyKey { policy, identity, direction, proto, port }
}

/// Nothing matched: denied by default. An entry denied: denied by it.
#[inline(always)]
fn refused(pkt: &Pkt, scratch: &Scratch, match_type: u8) -> Verdict {
    commit::refuse(pkt, scratch);
    Verdict::Drop(if match_type == abi::policy::match_type::NONE {
        DropReason::PolicyDenied
    } else {
        DropReason::PolicyDeny
    })
}

#[inline(never)]
fn ask(key: &PolicyKey, verdict: &mut event::Verdict) -> i32 {
    let peer = maps::POLICIES.get(Key::new(PREFIX_PORT, *key));
    let any = maps::POLICIES.get(Key::new(PREFIX_PORT, PolicyKey { identity: 0, ..*key }));
    match decide(peer, any) {
        Some((entry, match_type)) => {
            verdict.provenance = entry.provenance;
            verdict.match_type = match_type;
            verdict.outcome = if entry.deny != 0 { outcome::DENY } else { outcome::ALLOW };
        }
        None => {
            verdict.provenance = 0;
            verdict.match_type = abi::policy::match_type::NONE;
            verdict.outcome = outcome::DENY;
        }
    }
    0
}
