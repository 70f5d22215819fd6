// SPDX-License-Identifier: Apache-2.0
//! A lab on disk: a folder with its description, certificates, logs and one folder per node.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::topology::Topology;

/// What a lab was asked to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) topology: Topology,
    pub(crate) kube_bin: PathBuf,
    pub(crate) kube_proxy: Option<KubeProxy>,
    pub(crate) bridge_cni: bool,
}

/// How kube-proxy programs the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KubeProxy {
    /// By rules of iptables.
    Iptables,
    /// By maps of nftables.
    Nftables,
}

/// A lab and its folder.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub(crate) spec: Spec,
    pub(crate) folder: PathBuf,
}

/// The folder of all labs.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CILIUM_LAB_DIR").map_or_else(|| PathBuf::from("/var/lib/cilium-lab"), PathBuf::from)
}

pub(crate) fn folder(name: &str) -> PathBuf {
    root().join(name)
}

/// The names of all labs that have a folder.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    let labs = entries.filter(|entry| entry.path().join("lab.json").exists());
    let mut names: Vec<String> = labs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Lab {
    pub(crate) fn create(spec: Spec) -> Result<Self> {
        let lab = Self { folder: folder(&spec.name), spec };
        write(&lab.folder.join("lab.json"), serde_json::to_string_pretty(&lab.spec)?)?;
        Ok(lab)
    }

    pub(crate) fn open(name: &str) -> Result<Self> {
        let folder = folder(name);
        let file = folder.join("lab.json");
        if !file.exists() {
            let others = names();
            let hint = if others.is_empty() {
                "none is up; start one with `cilium lab up`".to_owned()
            } else {
                format!("up: {}; choose one with --name", others.join(", "))
            };
            bail!("there is no lab named '{name}' ({hint})");
        }
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let spec = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; `cilium lab down --name {name}` clears it", file.display()))?;
        Ok(Self { spec, folder })
    }

    /// The folder of one machine: the control plane or a node.
    pub(crate) fn machine(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.folder.join("pki").join(file)
    }

    /// The kubeconfig for people and tests on this machine.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Appears when the API server is ready; services that need it start then.
    pub(crate) fn ready_mark(&self) -> PathBuf {
        self.folder.join("api-ready")
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.spec.kube_bin.join(name)
    }

    pub(crate) fn kubectl(&self) -> std::process::Command {
        let mut command = std::process::Command::new(self.program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }
}

/// Writes a private file and its parent folders; half of the files are keys.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))
}
