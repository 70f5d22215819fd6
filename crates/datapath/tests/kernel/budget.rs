// SPDX-License-Identifier: Apache-2.0
//! What the programs cost the verifier.

use std::collections::BTreeMap;

use abi::config::ProgramConfig;
use datapath::bpf::{Options, Program, ProgramCost};

use crate::sandbox::{Sandbox, version};

/// What a program may cost.
struct Budget {
    stack: u32,
    /// None where this kernel's verifier has no column.
    instructions: Option<u32>,
}

/// Every switch on.
fn all_on() -> ProgramConfig {
    ProgramConfig {
        direct_tunnel: 1,
        expose_services: 1,
        direct_return: 1,
        direct_ipip: 1,
        accelerate: 1,
        reject_no_backend: 1,
        bind_protection: 1,
        sockets_of_host_only: 1,
        trace_sockets: 1,
        ..ProgramConfig::default()
    }
}

/// Budgets by program.
fn budgets() -> BTreeMap<&'static str, Budget> {
    let lines = include_str!("../../verifier-budget.txt").lines().filter(|line| !line.starts_with('#'));
    let mut rows = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let head = rows.next().unwrap();
    let (major, minor) = version();
    let column = head.iter().position(|column| *column == format!("{major}.{minor}"));
    let parse = |row: Vec<&'static str>| {
        assert_eq!(row.len(), head.len(), "{row:?}");
        let budget =
            Budget { stack: row[1].parse().unwrap(), instructions: column.map(|column| row[column].parse().unwrap()) };
        (row[0], budget)
    };
    rows.map(parse).collect()
}

impl Budget {
    fn holds(&self, cost: &ProgramCost) -> bool {
        cost.stack <= self.stack && self.instructions.is_none_or(|most| cost.verified_instructions <= most)
    }
}

#[test]
fn every_program_keeps_its_budget() {
    Sandbox::run(|sandbox| {
        let budgets = budgets();
        assert_eq!(budgets.len(), Program::ALL.len(), "a line per program");
        let mut over = Vec::new();
        for cost in sandbox.load_with(Options { config: all_on(), ..Options::default() }).costs().unwrap() {
            let name = cost.program.name();
            let budget = &budgets[name];
            let most = budget.instructions.map_or("any".to_owned(), |most| most.to_string());
            let line = format!(
                "{name:<20} stack {:>4} of {}, instructions {:>6} of {most}, lines {}",
                cost.stack, budget.stack, cost.verified_instructions, cost.lines
            );
            println!("{line}");
            // Older kernels load programs without telling what that took.
            assert!(cost.verified_instructions > 0 || version() < (5, 16), "{line}");
            if !budget.holds(&cost) {
                over.push(line);
            }
        }
        assert!(over.is_empty(), "over budget (crates/datapath/verifier-budget.txt): {over:#?}");
    });
}

#[test]
fn the_programs_load_with_any_setting_switched_off() {
    Sandbox::run(|sandbox| {
        let on = all_on();
        for config in [
            ProgramConfig::default(),
            ProgramConfig { enable_ipv4: 0, ..on },
            ProgramConfig { enable_ipv6: 0, ..on },
            ProgramConfig { tunnel: 0, ..on },
            ProgramConfig { masquerade_ipv4: 0, masquerade_ipv6: 0, ..on },
            ProgramConfig { trace_events: 0, ..on },
            ProgramConfig { trace_sockets: 0, ..on },
            ProgramConfig { coarse_clock: 0, set_retval: 0, ..on },
            ProgramConfig { direct_tunnel: 0, ..on },
            ProgramConfig { expose_services: 0, ..on },
            ProgramConfig { accelerate: 0, ..on },
            ProgramConfig { direct_ipip: 0, ..on },
            ProgramConfig { direct_return: 0, direct_ipip: 0, ..on },
            ProgramConfig { reject_no_backend: 0, bind_protection: 0, sockets_of_host_only: 0, ..on },
        ] {
            sandbox.load_with(Options { config, ..Options::default() });
        }
    });
}
