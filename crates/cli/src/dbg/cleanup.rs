// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg post-uninstall-cleanup`: nothing of an agent is left on the node.

use anyhow::{Context, Result, bail};
use clap::Args;
use datapath::bpf::{BPFFS, post_uninstall_cleanup};
use datapath::netlink::Netlink;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
    /// The folder of CNI configurations.
    #[arg(long, default_value = "/etc/cni/net.d")]
    cni_dir: PathBuf,
}

/// Devices that the agent makes, besides those of pods.
const DEVICES: [&str; 6] = ["cilium_host", "cilium_net", "cilium_vxlan", "cilium_geneve", "cilium_wg0", "lxc_health"];

pub(super) async fn run(options: &Options) -> Result<()> {
    if !options.force {
        bail!("pods of this node lose their network: say --force if that is wanted");
    }
    post_uninstall_cleanup(&options.bpf_root).context("remove programs, maps and links")?;
    println!("removed programs, maps and links below {}", options.bpf_root.display());
    remove_devices().await?;
    datapath::nft::cleanup().context("remove what netfilter was told of the tunnel")?;
    if options.all_state {
        remove(&options.state_dir.join("state"))?;
        remove(&options.state_dir.join("deleteQueue"))?;
        remove(&options.cni_dir.join("05-cilium.conflist"))?;
    }
    Ok(())
}

async fn remove_devices() -> Result<()> {
    let netlink = Netlink::open().context("talk to the kernel about devices")?;
    for link in netlink.links().await.context("list devices")? {
        if DEVICES.contains(&link.name.as_str()) {
            let removed = netlink.delete_link(link.index).await.with_context(|| format!("remove {}", link.name))?;
            // One half of a pair takes the other with it.
            if removed {
                println!("removed device {}", link.name);
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match result {
        Ok(()) => println!("removed {}", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
    }
    Ok(())
}
