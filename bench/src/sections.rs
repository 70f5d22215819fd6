// SPDX-License-Identifier: Apache-2.0
//! The parts of a run, in order.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::cluster::{Build, Cluster, ClusterOptions};
use crate::load::Kind;
use crate::report::{Figure, Report};
use crate::traffic::{self, Arm, Plan, Shape};
use crate::{
    accounting, bare, cni, collect, failover, hubble, memory, networks, pods, programs, proxy, scale, services, sync,
};

/// How to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Measure these parts only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Section>,
    /// Leave out what needs a cluster.
    #[arg(long)]
    no_cluster: bool,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2.0)]
    seconds: f32,
    /// Have clients and servers go before everything else on the machine: for one that is not idle.
    #[arg(long)]
    ahead: bool,
    /// Services in the cluster, in rising order.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000, 10_000, 30_000])]
    services: Vec<usize>,
    /// Pods whose memory is measured last; the kubelet's limit is 500.
    #[arg(long, default_value_t = 500)]
    pods: usize,
    /// Nodes and pods of the big cluster.
    #[arg(long, value_delimiter = ',', num_args = 1, default_values_t = [5000, 100_000])]
    scale: Vec<usize>,
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Compare the traffic of an older build, too: a folder with its `cilium.tar` and `chart` (`scripts/older` makes it).
    #[arg(long, value_name = "FOLDER")]
    older: Option<PathBuf>,
    /// Compare the traffic with a cluster of the same build without Hubble.
    #[arg(long)]
    without_hubble: bool,
    /// Where to write.
    #[arg(long, default_value = "target/bench/results.json")]
    results: PathBuf,
}

impl Options {
    fn span(&self) -> Duration {
        Duration::from_secs_f32(self.seconds)
    }

    fn plan(&self, kinds: &[Kind], rounds: usize) -> Plan {
        Plan { kinds: kinds.to_vec(), rounds, span: self.span(), what: None }
    }
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Section {
    /// Nanoseconds per run, by BPF_PROG_TEST_RUN.
    Programs,
    /// Garbage collection of flows.
    Collect,
    /// Flows: into the ring, to disk and to readers.
    Hubble,
    /// Very many Services into the maps, and changes of them.
    Sync,
    /// The proxy beside others.
    Proxy,
    /// Node ports with each way of forwarding, against kube-proxy.
    Forwarding,
    /// Announced addresses whose node fails.
    Failover,
    /// One byte there and back.
    Rr,
    /// Connect, one byte there and back, close.
    Crr,
    /// Throughput.
    Stream,
    /// Nanoseconds per run under load, by the kernel.
    Accounting,
    /// Connections through Services, against kube-proxy.
    Services,
    /// From a Deployment to Ready.
    Pods,
    /// From the agent's start to ready.
    Start,
    /// ADD and DEL.
    Cni,
    /// The agent's memory.
    Memory,
    /// The agent in a big cluster.
    Scale,
}

impl Section {
    /// Whether it is measured on the cluster that several are measured on.
    const fn is_on_cluster(self) -> bool {
        matches!(
            self,
            Self::Accounting | Self::Services | Self::Pods | Self::Start | Self::Cni | Self::Memory | Self::Scale
        )
    }

    /// Whether it brings clusters of its own up.
    const fn has_clusters(self) -> bool {
        matches!(self, Self::Forwarding | Self::Failover)
    }

    /// Whether it is part of a run of all: what takes too long is not.
    const fn is_among_all(self) -> bool {
        !self.has_clusters() && !matches!(self, Self::Scale)
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Runs the chosen parts.
pub(crate) fn measure(options: &Options) -> Result<ExitCode> {
    networks::hide_names()?;
    let mut report = Report::of_machine();
    let wanted = |section: Section| {
        let chosen = if options.only.is_empty() { section.is_among_all() } else { options.only.contains(&section) };
        chosen && !(options.no_cluster && (section.is_on_cluster() || section.has_clusters()))
    };
    let step = |text: &str| eprintln!("\n== {text}");
    for section in Section::value_variants().iter().copied().filter(|section| wanted(*section)) {
        if let Some(measure) = alone(section) {
            step(&section.name());
            report.add(&section.name(), measure(options));
        }
    }
    let kinds: Vec<Kind> = [(Section::Rr, Kind::Rr), (Section::Crr, Kind::Crr), (Section::Stream, Kind::Stream)]
        .into_iter()
        .filter_map(|(section, kind)| wanted(section).then_some(kind))
        .collect();
    let on_cluster: Vec<Section> = Section::value_variants()
        .iter()
        .copied()
        .filter(|section| section.is_on_cluster() && wanted(*section))
        .collect();
    let cluster = if options.no_cluster || (kinds.is_empty() && on_cluster.is_empty()) {
        None
    } else {
        step("cluster");
        match options.cluster.open("bench") {
            Ok(cluster) => Some(cluster),
            Err(error) => {
                report.add("cluster", Err(error));
                None
            }
        }
    };
    if let (Some(cluster), true) = (&cluster, wanted(Section::Memory)) {
        report.add("memory", memory::fresh(cluster));
    }
    if !kinds.is_empty() {
        step("traffic");
        report.add("traffic", compare(options, &kinds, cluster.as_ref()));
    }
    if let Some(cluster) = &cluster {
        for section in on_cluster {
            step(&section.name());
            report.add(&section.name(), one(section, options, cluster));
        }
    }
    drop(cluster);
    Ok(if report.finish(&options.results)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A cluster with the build to compare with, if one is given.
fn open_older(options: &Options) -> Result<Option<Cluster>> {
    let Some(folder) = &options.older else { return Ok(None) };
    let folder = folder.canonicalize().with_context(|| format!("no {}", folder.display()))?;
    let (image, chart) = (folder.join("cilium.tar"), folder.join("chart"));
    let build = Build { lab: "bench-older".to_owned(), image, chart };
    Cluster::with_build(options.cluster.command()?, &build, &options.cluster.helm_set).map(Some)
}

/// Measures a section, all by itself.
type Measure = fn(&Options) -> Result<Vec<Figure>>;

/// How a part is measured that shares nothing with others.
fn alone(section: Section) -> Option<Measure> {
    let measure: Measure = match section {
        Section::Programs => |_| programs::measure(3000),
        Section::Collect => |_| collect::measure(),
        Section::Hubble => |_| hubble::measure(),
        Section::Sync => |_| sync::measure(),
        Section::Proxy => |options| proxy::measure(options.rounds, options.span()),
        Section::Forwarding => |options| {
            let plan = options.plan(&[Kind::Rr, Kind::Crr], options.rounds);
            services::forwarding(&options.cluster, options.ahead, &plan)
        },
        Section::Failover => |options| failover::measure(&options.cluster, options.rounds),
        _ => return None,
    };
    Some(measure)
}

fn one(section: Section, options: &Options, cluster: &Cluster) -> Result<Vec<Figure>> {
    let span = options.span();
    match section {
        Section::Accounting => {
            let arms: Vec<Arm> = cluster.arms("ours")?.into_iter().map(|arm| arm.ahead(options.ahead)).collect();
            accounting::measure(cluster, &arms, span)
        }
        Section::Services => {
            let plan = options.plan(&[Kind::Crr], options.rounds);
            services::measure(cluster, &options.cluster.command()?, &options.services, options.ahead, &plan)
        }
        Section::Pods => pods::measure(cluster, &options.cluster.command()?, options.rounds.min(3)),
        Section::Start => pods::agent_start(cluster),
        Section::Cni => cni::measure(cluster),
        Section::Memory => memory::measure(cluster, options.pods),
        Section::Scale => match options.scale[..] {
            [nodes, pods] => scale::measure(cluster, nodes, pods),
            _ => bail!("--scale takes two numbers: nodes and pods"),
        },
        _ => Ok(Vec::new()),
    }
}

/// All networks, per shape, compared with the first; IPv6 with a quarter of the rounds.
fn compare(options: &Options, kinds: &[Kind], cluster: Option<&Cluster>) -> Result<Vec<Figure>> {
    let mut arms = networks::plain().context("plain routing")?.to_vec();
    arms.extend(networks::ptp().context("the plugin ptp")?);
    arms.extend(bare::arms().context("the programs alone")?);
    if let Some(cluster) = cluster {
        arms.extend(cluster.arms("ours")?);
    }
    let older = open_older(options)?;
    if let Some(cluster) = &older {
        arms.extend(cluster.arms("older")?);
    }
    let blind = options.without_hubble.then(|| options.cluster.open_with("bench-blind", &["hubble.enabled=false"]));
    let blind = blind.transpose()?;
    if let Some(cluster) = &blind {
        arms.extend(cluster.arms("without Hubble")?);
    }
    let mut figures = Vec::new();
    for (family, rounds) in [(0, options.rounds), (1, (options.rounds / 2).max(1))] {
        for shape in [Shape::OneNode, Shape::TwoNodes] {
            let same = arms.iter().filter(|arm| arm.shape == shape);
            let same: Vec<Arm> = same.map(|arm| arm.clone().ahead(options.ahead)).collect();
            let plan = options.plan(kinds, rounds);
            figures.extend(traffic::compare(&same, family, &plan)?);
        }
    }
    Ok(figures)
}
