// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What a record of the flow table says, whatever packet is at hand.

use abi::flow::{Flow, FlowKey, Half, tcp};
use abi::tuple::Tuple;

/// The half of a direction.
#[inline(always)]
pub fn half_of(flow: &Flow, reply: bool) -> &Half {
    if reply { &flow.reply } else { &flow.forward }
}

/// Whether who opened the connection goes on with it, under ends that are the other end's as well.
#[inline(always)]
pub fn is_held(flow: &Flow) -> bool {
    !flow.is_translated() && flow.forward.tcp_seen & (tcp::FIN | tcp::RST) == 0
}

/// Whether replies of a flow under `key` have the ends of `ends`.
#[inline(never)]
pub fn answers_as(flow: &Flow, key: &FlowKey, ends: &FlowKey) -> bool {
    let answer = flow.answer(key).key().0;
    FlowKey { alias: ends.alias, ..answer } == *ends
}

/// Under which key replies of that tuple find their record.
#[inline(always)]
pub fn alias_key(answer: &Tuple) -> FlowKey {
    FlowKey { alias: 1, ..answer.key().0 }
}
