// SPDX-License-Identifier: Apache-2.0
//! Loads container images from OCI archives on this machine onto the nodes, without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::clock;
use crate::namespace;
use crate::node::CONTAINERD;
use crate::run;
use crate::state::Lab;

/// The archives built by `make kube`, smallest first, so that the cluster can use those while the others are loading.
pub(crate) fn own(lab: &Lab) -> Vec<PathBuf> {
    let folder = lab.spec.kube_bin.with_file_name("images");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut archives: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "tar")).collect();
    archives.sort_by_key(|path| path.metadata().map_or(0, |data| data.len()));
    archives
}

/// Loads archives onto all running nodes at once. Returns how many nodes there were.
pub(crate) fn load(lab: &Lab, archives: &[PathBuf]) -> Result<usize> {
    for archive in archives {
        if !archive.is_file() {
            bail!("there is no image archive {}", archive.display());
        }
    }
    let places = lab.spec.topology.places();
    let on: Vec<&str> = places
        .iter()
        .map(|place| place.name.as_str())
        .filter(|name| namespace::first_process(lab, name).is_ok())
        .collect();
    let failures = thread::scope(|scope| {
        let nodes: Vec<_> = on.iter().map(|node| scope.spawn(|| load_on(lab, node, archives))).collect();
        let results = nodes.into_iter().map(|node| node.join().unwrap_or_else(|_| Err(anyhow!("a thread ended"))));
        results.filter_map(Result::err).collect::<Vec<_>>()
    });
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(on.len()),
    }
}

fn load_on(lab: &Lab, node: &str, archives: &[PathBuf]) -> Result<()> {
    let pid = namespace::first_process(lab, node)?;
    let socket = PathBuf::from(format!("/proc/{pid}/root{CONTAINERD}"));
    clock::poll(Duration::from_secs(20), &format!("containerd of {node}"), || match socket.exists() {
        true => Ok(()),
        false => bail!("it does not listen"),
    })?;
    for archive in archives {
        let file = archive.canonicalize().with_context(|| format!("cannot find {}", archive.display()))?;
        run::output(ctr(lab, node)?.arg("import").arg(&file))
            .with_context(|| format!("cannot load {} on {node}", file.display()))?;
        let names = names(&file);
        if let [first, others @ ..] = names.as_slice() {
            for other in others {
                run::output(ctr(lab, node)?.args(["tag", "--force", first, other]))?;
            }
        }
    }
    Ok(())
}

/// The names for an archive's image, its own first: one per line in a file next to it. An archive holds one image.
fn names(archive: &Path) -> Vec<String> {
    let mut list = archive.as_os_str().to_owned();
    list.push(".names");
    let text = fs::read_to_string(list).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn ctr(lab: &Lab, node: &str) -> Result<Command> {
    let pid = namespace::first_process(lab, node)?;
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(pid.to_string()).args(["--mount", "--net", "--pid"]).arg(lab.program("ctr"));
    command.args(["--address", CONTAINERD, "--namespace", "k8s.io", "images"]);
    Ok(command)
}
