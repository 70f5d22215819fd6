// SPDX-License-Identifier: Apache-2.0
//! The commands of `cilium lab`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::progress::Progress;
use crate::state::{self, KubeProxy, Lab, Spec};
use crate::topology::{MAX_NODES, Topology};
use crate::{capture, clock, cluster, conformance, fault, images, init, namespace, run, status};

/// A real Kubernetes cluster in network namespaces: no containers around it, no virtual machines, up in seconds.
///
/// `up` leaves a plain Kubernetes without a network: nodes are NotReady until one is installed, with Helm as on any cluster.
#[derive(Debug, Parser)]
#[command(name = "cilium-lab", bin_name = "cilium lab", arg_required_else_help = true)]
struct Arguments {
    /// Which lab; several can be up side by side.
    #[arg(long, global = true, default_value = "lab", env = "CILIUM_LAB", value_parser = lab_name)]
    name: String,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Bring a cluster up; one of the same name is taken down first.
    Up(Up),
    /// Take a cluster down: nothing of it is left.
    Down,
    /// Show the machines of a cluster and whether they work.
    Status(Printed),
    /// Load container images (OCI or Docker archives) onto every node.
    Load {
        /// Archives, as `make image`, `buildah push` or `docker save` write them.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Run a command on a node (or on `control`): in its namespaces and cgroup. Its exit status passes through.
    Node {
        /// node1, node2, ... or control.
        node: String,
        /// The command and its arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Print the path of the administrator's kubeconfig, for: export KUBECONFIG=$(cilium lab kubeconfig).
    Kubeconfig {
        /// Print the file itself.
        #[arg(long)]
        raw: bool,
    },
    /// Do to a target what happens to real machines.
    #[command(subcommand)]
    Fault(Fault),
    /// Run Kubernetes' own end-to-end tests against the network that is installed.
    Conformance(conformance::Options),
    /// Run Gateway API's own conformance suite against the GatewayClass that is installed.
    GatewayConformance(conformance::gateway::Options),
    /// Collect the state and the logs of a cluster in a folder.
    Capture {
        /// The folder to write to; it is created.
        to: PathBuf,
    },
    /// The first process of a machine; the lab calls this itself.
    #[command(subcommand, hide = true)]
    Init(Init),
}

#[derive(Debug, Args)]
struct Up {
    /// How many nodes, besides the control plane.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: u8,
    /// IPv4 only; both --ipv4 and --ipv6, or neither, make a dual-stack cluster.
    #[arg(long)]
    ipv4: bool,
    /// IPv6 only.
    #[arg(long)]
    ipv6: bool,
    /// Run kube-proxy on every node.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "iptables", value_name = "MODE")]
    kube_proxy: Option<KubeProxy>,
    /// Install a network to compare with. Without this, pods wait for one to be installed.
    #[arg(long, value_enum)]
    cni: Option<Cni>,
    /// The folder of Kubernetes' programs, if not target/kube/bin.
    #[arg(long, value_name = "DIR", env = "CILIUM_LAB_KUBE_BIN")]
    kube_bin: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cni {
    /// The reference plugins: bridge, host-local, portmap.
    Bridge,
}

#[derive(Debug, Args)]
struct Printed {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

const TARGETS: &str = "node1, a process of a node (node1/kubelet, node1/containerd, node1/agent, node1/ANY), \
                       or a part of the control plane (apiserver, etcd, scheduler, controller-manager)";

#[derive(Debug, Subcommand)]
enum Fault {
    /// SIGKILL a process (services start again at once), or pull a node's plug.
    Kill {
        #[arg(help = TARGETS)]
        target: String,
    },
    /// Hold a service down, freeze another process, or switch a node off, until restored.
    Stop {
        #[arg(help = TARGETS)]
        target: String,
    },
    /// Pull a node's network cable.
    Cut {
        #[arg(help = "node1, node2, ...")]
        target: String,
    },
    /// Undo stop, cut and kill.
    Restore {
        #[arg(help = TARGETS)]
        target: String,
    },
    /// End every process of a node, empty its namespaces, start it again. Its disk is kept.
    Reboot {
        #[arg(help = "node1, node2, ...")]
        target: String,
    },
}

#[derive(Debug, Subcommand)]
enum Init {
    Boot { file: PathBuf },
    Run { file: PathBuf },
}

/// What clap knows of `cilium lab`; the reference is made of it.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs a command of the lab; the arguments are those after `lab`. To be called before the process starts any thread.
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<ExitCode> {
    let words = std::iter::once(OsString::from("cilium-lab")).chain(arguments.into_iter().map(Into::into));
    let Arguments { name, command } = match Arguments::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(error) => {
            error.print().context("cannot print")?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    match command {
        Commands::Up(options) => up(name, options)?,
        Commands::Down => {
            let known = state::folder(&name).exists();
            cluster::down(&name)?;
            eprintln!("{}", if known { format!("lab '{name}' is down") } else { format!("no lab '{name}' was up") });
        }
        Commands::Status(printed) => return status::show(&Lab::open(&name)?, printed.output == Output::Json),
        Commands::Load { archives } => {
            let lab = Lab::open(&name)?;
            let progress = Progress { quiet: false };
            progress.step("images", || Ok(format!("loaded onto {} nodes", images::load(&lab, &archives)?)))?;
        }
        Commands::Node { node, command } => return namespace::run_in(&Lab::open(&name)?, &node, &command),
        Commands::Kubeconfig { raw } => {
            let path = Lab::open(&name)?.kubeconfig();
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            println!("{}", if raw { text } else { path.display().to_string() });
        }
        Commands::Fault(fault) => println!("{}", inject(&Lab::open(&name)?, &fault)?),
        Commands::GatewayConformance(options) => {
            println!("{}", conformance::gateway::conform(&Lab::open(&name)?, &options)?);
        }
        Commands::Conformance(options) => println!("{}", conformance::conform(&Lab::open(&name)?, &options)?),
        Commands::Capture { to } => println!("{}", capture::capture(&Lab::open(&name)?, &to)?.display()),
        Commands::Init(Init::Boot { file }) => init::boot(&file)?,
        Commands::Init(Init::Run { file }) => init::run(&file)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: String, options: Up) -> Result<()> {
    let both = options.ipv4 == options.ipv6;
    let topology = Topology { nodes: options.nodes, ipv4: both || options.ipv4, ipv6: both || options.ipv6 };
    let spec = Spec {
        name,
        topology,
        kube_bin: cluster::kube_bin(options.kube_bin)?,
        kube_proxy: options.kube_proxy,
        bridge_cni: options.cni.is_some(),
    };
    let begin = clock::now();
    let quiet = options.printed.output == Output::Json;
    let lab = cluster::up(spec, Progress { quiet })?;
    let seconds = begin.elapsed().as_secs_f32();
    if quiet {
        let api = lab.spec.topology.control().first().map(ToString::to_string);
        let said = json!({
            "name": lab.spec.name, "kubeconfig": lab.kubeconfig(), "folder": lab.folder, "seconds": seconds,
            "nodes": lab.spec.topology.places().iter().map(|place| &place.name).collect::<Vec<_>>(),
            "k8sServiceHost": api, "k8sServicePort": crate::topology::API_PORT,
        });
        println!("{}", serde_json::to_string_pretty(&said)?);
        return Ok(());
    }
    let flag = if lab.spec.name == "lab" { String::new() } else { format!(" --name {}", lab.spec.name) };
    let kubectl =
        if run::exists("kubectl") { "kubectl".to_owned() } else { lab.program("kubectl").display().to_string() };
    eprintln!("\n  Lab '{}' is up after {seconds:.1} s.\n", lab.spec.name);
    eprintln!("    export KUBECONFIG={}", lab.kubeconfig().display());
    eprintln!("    {kubectl} get nodes -o wide");
    eprintln!("    cilium lab node node1{flag} -- ip address     a command on a node");
    eprintln!("    cilium lab down{flag}                         take it down\n");
    Ok(())
}

fn inject(lab: &Lab, fault: &Fault) -> Result<String> {
    match fault {
        Fault::Kill { target } => fault::kill_target(lab, target),
        Fault::Stop { target } => fault::stop(lab, target),
        Fault::Cut { target } => fault::cut(lab, target),
        Fault::Restore { target } => fault::restore(lab, target),
        Fault::Reboot { target } => fault::reboot(lab, target),
    }
}

/// A lab's name becomes the name of a folder and a cgroup.
fn lab_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 40 || !text.chars().all(good) || text == "cgroup2" {
        return Err("use at most 40 lower-case letters, digits and dashes".to_owned());
    }
    Ok(text.to_owned())
}
