// SPDX-License-Identifier: Apache-2.0
//! The soak: pods, policies, Services and namespaces come and go while agents, the operator and the API server are killed, stopped and
//! hung at random. The end state is checked: each daemon was hit in each way, the kernel and the API server hold what freshly started
//! agents write, nothing deleted is left behind, and no daemon has grown.

mod churn;
mod faults;
mod look;
mod memory;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::clock;
use crate::cluster::{Cluster, ClusterOptions};
use churn::Churn;
use faults::Faults;
use memory::Memory;

pub(crate) const NODES: [&str; 2] = ["node1", "node2"];
const BREATH: Duration = Duration::from_millis(500);
/// How long everything may take to settle after the last fault.
const REST: Duration = Duration::from_secs(300);

/// How to soak.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    cluster: ClusterOptions,
    /// How long things come, go and fail.
    #[arg(long, default_value_t = 20.0)]
    minutes: f32,
    /// What is done follows from this number; a fresh one is drawn and printed if it is not given.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the soak; the exit code says whether all checks passed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(rand::random);
    eprintln!("== soak: {} minutes, --seed {seed}", options.minutes);
    let cluster = options.cluster.open("soak")?;
    let faulty = soak(&cluster, Duration::from_secs_f32(options.minutes * 60.0), seed)?;
    if faulty.is_empty() {
        println!("soak: ok");
        return Ok(ExitCode::SUCCESS);
    }
    faulty.iter().for_each(|fault| println!("soak: {fault:#}"));
    println!("soak: FAILED, --seed {seed}");
    Ok(ExitCode::FAILURE)
}

/// All failed checks.
fn soak(cluster: &Cluster, span: Duration, seed: u64) -> Result<Vec<anyhow::Error>> {
    let mut random = StdRng::seed_from_u64(seed);
    rested(cluster)?;
    let before = look::everywhere(look::leftovers, cluster)?;
    let mut memory = Memory::default();
    let (mut churn, mut faults) = (Churn::default(), Faults::default());
    let end = clock::now() + span;
    while clock::now() < end {
        churn.step(cluster, &mut random);
        faults.step(cluster, &mut random)?;
        memory.sample(cluster);
        clock::breathe(BREATH);
    }
    faults.end(cluster)?;
    eprintln!("{churn}; {faults}");

    let mut faulty = Vec::new();
    let mut check = |what: &str, result: Result<()>| match result {
        Ok(()) => eprintln!("{what}: ok"),
        Err(error) => {
            eprintln!("{what}: FAILED: {error:#}");
            faulty.push(error.context(what.to_owned()));
        }
    };
    check("every daemon was hit in every way", faults.complete());
    check("everything comes to rest", rested(cluster).and_then(|()| churn.settled(cluster)));
    check("the kernel holds what a fresh start computes", as_after_a_restart(cluster));
    churn.clear(cluster)?;
    check("nothing is left", nothing_left(cluster, &before));
    check("no daemon has grown", memory.is_flat(cluster));
    Ok(faulty)
}

/// Waits until agents, operator and nodes are ready.
fn rested(cluster: &Cluster) -> Result<()> {
    clock::poll(REST, BREATH, || {
        for workload in ["daemonset/cilium", "deployment/cilium-operator"] {
            cluster.kubectl(&["-n", "kube-system", "rollout", "status", workload, "--timeout=20s"])?;
        }
        cluster.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=20s"]).map(drop)
    })
}

/// Compares maps, network and objects by meaning before and after a restart of all agents.
fn as_after_a_restart(cluster: &Cluster) -> Result<()> {
    let before = look::everywhere(look::steady, cluster)?;
    for node in NODES {
        cluster.replace_agent(node)?;
    }
    rested(cluster)?;
    let after = look::everywhere(look::steady, cluster)?;
    let differences = look::differences(&before, &after);
    ensure!(differences.is_empty(), "a restart changes:\n{}", differences.join("\n"));
    ensure!(before.iter().all(|lines| lines.len() > 10), "there is hardly anything to compare: {before:?}");
    Ok(())
}

fn nothing_left(cluster: &Cluster, before: &[look::Lines]) -> Result<()> {
    clock::poll(REST, BREATH, || {
        let now = look::everywhere(look::leftovers, cluster)?;
        let differences = look::differences(before, &now);
        if differences.is_empty() { Ok(()) } else { bail!("before and now:\n{}", differences.join("\n")) }
    })
}
