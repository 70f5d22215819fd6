// SPDX-License-Identifier: Apache-2.0
//! Nanoseconds per run of each program under load, counted by the kernel. The figures include the counting itself, some 20 ns.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use datapath::bpf::{Pinned, Program, RunTimeCount};

use crate::cluster::Cluster;
use crate::load::Kind;
use crate::report::Figure;
use crate::traffic::{Arm, Shape};

const NODES: [&str; 2] = ["node1", "node2"];

/// Loads each arm with RR and CRR, and reads the counters of both nodes before and after.
pub(crate) fn measure(cluster: &Cluster, arms: &[Arm], span: Duration) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for arm in arms {
        for kind in [Kind::Rr, Kind::Crr] {
            figures.extend(loaded(cluster, arm, kind, span)?);
        }
    }
    Ok(figures)
}

fn loaded(cluster: &Cluster, arm: &Arm, kind: Kind, span: Duration) -> Result<Vec<Figure>> {
    let address = arm.addresses[0];
    let server = arm.serve(address)?;
    arm.load(kind, address, Duration::from_millis(100))?;
    let counting = RunTimeCount::start()?;
    let before = counts(cluster)?;
    let measured = arm.load(kind, address, span)?;
    let after = counts(cluster)?;
    drop((counting, server));
    let transactions = measured.rate * span.as_secs_f64();
    let name = format!("{} {}", format!("{kind:?}").to_uppercase(), arm.shape.name());
    let mut figures = Vec::new();
    for (program, (runs, nanoseconds)) in after {
        let (runs_before, nanoseconds_before) = before.get(&program).copied().unwrap_or_default();
        let (runs, nanoseconds) = (runs - runs_before, nanoseconds - nanoseconds_before);
        // Programs that ran only now and then were not part of the load.
        if (runs as f64) < transactions / 10.0 {
            continue;
        }
        let each = runs as f64 / transactions;
        let what = format!("{name}: {} ({each:.1} runs each)", program.name());
        let mut figure = Figure::new(what, arm.name.as_str(), nanoseconds as f64 / runs as f64, "ns");
        let established = kind == Kind::Rr && arm.shape == Shape::OneNode && program == Program::PodEgress;
        figure.target = established.then(|| "<= 450".to_owned());
        figures.push(figure);
    }
    Ok(figures)
}

/// Runs and nanoseconds of each program, on both nodes together.
fn counts(cluster: &Cluster) -> Result<BTreeMap<Program, (u64, u64)>> {
    let mut all: BTreeMap<Program, (u64, u64)> = BTreeMap::new();
    for node in NODES {
        let times = Pinned::open(&cluster.bpffs(node)?).run_times().with_context(|| format!("programs of {node}"))?;
        for time in times {
            let entry = all.entry(time.program).or_default();
            *entry = (entry.0 + time.runs, entry.1 + time.nanoseconds);
        }
    }
    Ok(all)
}
