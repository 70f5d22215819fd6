// SPDX-License-Identifier: Apache-2.0
//! The agent's memory by number of pods, which are added with the plugin.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::clock;
use crate::cluster::Cluster;
use crate::cni::PaperPods;
use crate::report::Figure;

const NODE: &str = "node1";
/// Memory that is freed late is not in use.
const SETTLE: Duration = Duration::from_secs(3);

/// Memory of an agent that has just become ready.
pub(crate) fn fresh(cluster: &Cluster) -> Result<Vec<Figure>> {
    let [resident, private] = look(cluster, "fresh")?;
    Ok(vec![resident.target("< 40 MiB, aim 25"), private])
}

/// Memory after the other parts, with a hundred pods and with the most, and after they have gone.
pub(crate) fn measure(cluster: &Cluster, most: usize) -> Result<Vec<Figure>> {
    let mut figures = look(cluster, "before")?.to_vec();
    let pods = PaperPods::create(cluster, most)?;
    let mut there = 0;
    for count in [most.min(100), most] {
        let (first, more) = (there.to_string(), (count - there).to_string());
        if count > there {
            pods.call(&["--first", &first, "--count", &more, "--parallel", "4", "--keep"])?;
        }
        there = count;
        clock::breathe(SETTLE);
        figures.extend(look(cluster, &format!("{count} pods"))?);
    }
    pods.call(&["--count", &most.to_string(), "--parallel", "4", "--delete-only"])?;
    clock::breathe(SETTLE);
    figures.extend(look(cluster, "after them")?);
    drop(pods);
    Ok(figures)
}

fn look(cluster: &Cluster, when: &str) -> Result<[Figure; 2]> {
    let file = format!("/proc/{}/smaps_rollup", cluster.agent(NODE)?);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let sum = |names: &[&str]| -> f64 {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let values =
            lines.filter(|(name, _)| names.contains(name)).filter_map(|(_, rest)| rest.split_whitespace().next());
        values.filter_map(|kib| kib.parse::<f64>().ok()).sum::<f64>() / 1024.0
    };
    let figure = |what: &str, names: &[&str]| Figure::new(format!("{what}, {when}"), "ours", sum(names), "MiB");
    Ok([
        figure("resident memory of the agent", &["Rss"]),
        figure("private memory of the agent", &["Private_Clean", "Private_Dirty"]),
    ])
}
