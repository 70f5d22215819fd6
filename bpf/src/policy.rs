// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The policy verdict: two longest-prefix lookups, one decision (`abi::policy::decide`, which the oracle in user space
//! runs as well).

use crate::maps;
use crate::parse::Pkt;
use crate::scratch::Scratch;
use abi::DropReason;
use abi::endpoint::flags;
use abi::event::{Verdict, outcome};
use abi::policy::{EGRESS, INGRESS, PREFIX_PORT, PolicyKey, decide};
use aya_ebpf::maps::lpm_trie::Key;

/// What is asked of one side's policy.
struct Question {
    policy: u32,
    identity: u32,
    direction: u8,
    proto: u8,
    port: u16,
}

/// Asks the egress policy of a local source, then the ingress policy of a local destination. 0, or minus the reason.
#[inline(always)]
pub fn check(pkt: &Pkt, scratch: &mut Scratch) -> i32 {
    check_as(pkt, pkt.flags, scratch)
}

/// The same for a packet of the given ICMP type.
#[inline(never)]
pub fn check_as(pkt: &Pkt, icmp_type: u8, scratch: &mut Scratch) -> i32 {
    // Without its policy a pod gets nothing, whoever sends.
    if scratch.dst_flags & flags::NOT_READY != 0 {
        return -(DropReason::DropEpNotReady.code() as i32);
    }
    let port = pkt.policy_port(icmp_type, scratch.dport);
    if scratch.src_flags & flags::EGRESS_ENFORCED != 0 {
        let question = Question {
            policy: scratch.src_policy,
            identity: scratch.forward.dst_identity,
            direction: EGRESS,
            proto: pkt.key.proto,
            port,
        };
        ask(&question, &mut scratch.egress);
        if scratch.egress.outcome == outcome::DENY {
            return denied(&scratch.egress);
        }
        scratch.forward.provenance = scratch.egress.provenance;
    }
    if scratch.dst_flags & flags::INGRESS_ENFORCED != 0 {
        let question = Question {
            policy: scratch.dst_policy,
            identity: scratch.forward.src_identity,
            direction: INGRESS,
            proto: pkt.key.proto,
            port,
        };
        ask(&question, &mut scratch.ingress);
        if scratch.ingress.outcome == outcome::DENY {
            return denied(&scratch.ingress);
        }
        scratch.forward.provenance = scratch.ingress.provenance;
    }
    0
}

/// Nothing matched: denied by default. An entry denied: denied by it.
#[inline(always)]
fn denied(verdict: &Verdict) -> i32 {
    let reason = if verdict.match_type == abi::policy::match_type::NONE {
        DropReason::PolicyDenied
    } else {
        DropReason::PolicyDeny
    };
    -(reason.code() as i32)
}

#[inline(never)]
fn ask(question: &Question, verdict: &mut Verdict) -> i32 {
    let key = PolicyKey {
        policy: question.policy,
        identity: question.identity,
        direction: question.direction,
        proto: question.proto,
        port: question.port,
    };
    let peer = maps::POLICIES.get(Key::new(PREFIX_PORT, key));
    let any = maps::POLICIES.get(Key::new(PREFIX_PORT, PolicyKey { identity: 0, ..key }));
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
