// SPDX-License-Identifier: Apache-2.0
//! What the programs cost the verifier.

use std::collections::BTreeMap;

use abi::config::ProgramConfig;
use datapath::bpf::{Options, Program};

use crate::sandbox::Sandbox;

/// Instructions and stack by program.
fn budget() -> BTreeMap<&'static str, (u32, u32)> {
    let lines = include_str!("../../verifier-budget.txt").lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &'static str| {
        let [program, instructions, stack] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        (program, (instructions.parse().unwrap(), stack.parse().unwrap()))
    };
    lines.map(parse).collect()
}

#[test]
fn every_program_keeps_its_budget() {
    Sandbox::run(|sandbox| {
        let budget = budget();
        assert_eq!(budget.len(), Program::ALL.len(), "a line per program");
        let mut over = Vec::new();
        for cost in sandbox.load().costs().unwrap() {
            let name = cost.program.name();
            let line = format!("{name:<20} {:>12} {:>6}", cost.verified_instructions, cost.deepest_frame);
            println!("{line}");
            let (instructions, stack) = budget[name];
            assert!(cost.verified_instructions > 0, "{line}");
            if cost.verified_instructions > instructions || cost.deepest_frame > stack {
                over.push(line);
            }
        }
        assert!(over.is_empty(), "over budget (crates/datapath/verifier-budget.txt): {over:#?}");
    });
}

#[test]
fn the_programs_load_with_any_setting_switched_off() {
    Sandbox::run(|sandbox| {
        let on = ProgramConfig::default();
        for config in [
            ProgramConfig { enable_ipv4: 0, ..on },
            ProgramConfig { enable_ipv6: 0, ..on },
            ProgramConfig { tunnel: 0, ..on },
            ProgramConfig { masquerade_ipv4: 0, masquerade_ipv6: 0, ..on },
            ProgramConfig { trace_events: 0, ..on },
            ProgramConfig { coarse_clock: 0, set_retval: 0, ..on },
        ] {
            sandbox.load_with(Options { config, ..Options::default() });
        }
    });
}
