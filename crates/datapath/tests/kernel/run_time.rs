// SPDX-License-Identifier: Apache-2.0
//! Counting what programs cost.

use datapath::bpf::{Pinned, Program, RunTimeCount};

use crate::sandbox::Sandbox;

#[test]
fn runs_are_counted_of_every_program_while_somebody_wants_them_to_be() {
    Sandbox::run(|sandbox| {
        let datapath = sandbox.load();
        let count = || {
            let times = Pinned::open(&sandbox.bpffs).run_times().unwrap();
            assert_eq!(times.len(), Program::ALL.len());
            times.into_iter().find(|time| time.program == Program::NetdevIngress).unwrap()
        };
        let counting = RunTimeCount::start().unwrap();
        let before = count();
        datapath.test_run(Program::NetdevIngress, &[0; 64], 1, 10).unwrap();
        let after = count();
        drop(counting);
        assert_eq!(after.runs, before.runs + 10);
        assert!(after.nanoseconds > before.nanoseconds);
    });
}
