// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg post-uninstall-cleanup`: removes everything of an agent from the node.

use anyhow::{Context, Result, bail};
use clap::Args;
use datapath::bpf::{BPFFS, post_uninstall_cleanup};
use datapath::netlink::Netlink;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Do not ask.
    #[arg(long, short)]
    force: bool,
    /// Remove programs, maps and devices (done unless only other things are asked for).
    #[arg(long)]
    bpf_state: bool,
    /// Remove the agent's files and the CNI configuration, too.
    #[arg(long)]
    all_state: bool,
    /// The bpf file system.
    #[arg(long, default_value = BPFFS)]
    bpf_root: PathBuf,
    /// The agent's runtime folder.
    #[arg(long, default_value = "/var/run/cilium")]
    state_dir: PathBuf,
    /// The folder of flows.
    #[arg(long, default_value = "/var/lib/cilium/hubble")]
    history_dir: PathBuf,
    /// The folder of CNI configurations.
    #[arg(long, default_value = "/etc/cni/net.d")]
    cni_dir: PathBuf,
}

/// The health endpoint's device and tunnels of other origin; `node::cleanup` removes the rest.
const DEVICES: [&str; 3] = ["cilium_geneve", "cilium_wg0", "lxc_health"];

pub(super) async fn run(options: &Options) -> Result<()> {
    if !options.force {
        bail!("pods of this node lose their network: say --force if that is wanted");
    }
    post_uninstall_cleanup(&options.bpf_root).context("remove programs, maps and links")?;
    println!("removed programs, maps and links below {}", options.bpf_root.display());
    node::cleanup().await.context("remove devices, routes and what netfilter was told of the tunnel")?;
    remove_devices().await?;
    println!("removed devices and routes");
    if options.all_state {
        let folders = endpoint::Config { runtime: options.state_dir.clone(), ..endpoint::Config::default() };
        folders.forget().with_context(|| format!("remove the state below {}", options.state_dir.display()))?;
        match std::fs::remove_dir_all(&options.history_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", options.history_dir.display()));
            }
            _ => {}
        }
        endpoint::conflist::remove(&options.cni_dir.join(endpoint::conflist::FILE))?;
        println!("removed the state below {} and the CNI configuration", options.state_dir.display());
    }
    Ok(())
}

async fn remove_devices() -> Result<()> {
    let netlink = Netlink::open().context("talk to the kernel about devices")?;
    for link in netlink.links().await.context("list devices")? {
        if DEVICES.contains(&link.name.as_str()) {
            netlink.delete_link(link.index).await.with_context(|| format!("remove {}", link.name))?;
        }
    }
    Ok(())
}
