// SPDX-License-Identifier: Apache-2.0
//! Installs the plugin on the host: this very executable, which acts on its name. Removes the configuration again where
//! the chart wants that.

use crate::file::temporary;
use crate::{config, conflist};
use model::config::{ConfigErrors, Reader};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The plugin could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("CNI plugin {} cannot be installed", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// The plugin's configuration could not be removed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum UninstallError {
    /// The keys cannot be read.
    Folder(#[from] k8s::config_map::Error),
    /// The key is neither true nor false.
    Key(#[from] ConfigErrors),
    /// The configuration cannot be removed.
    Conflist(#[from] conflist::Error),
}

/// Removes the plugin's configuration from `folder` if the key `cni-uninstall`, in a folder with one file per key, is
/// set. Returns whether it is.
///
/// # Errors
///
/// The keys cannot be read, or the configuration cannot be removed.
pub fn uninstall_plugin(keys: &Path, folder: &Path) -> Result<bool, UninstallError> {
    let values = k8s::config_map::read_folder(keys)?;
    let mut read = Reader::new(&values);
    let wanted = read.get(&config::UNINSTALL);
    let wanted = read.finish(wanted).map_err(ConfigErrors::from)?;
    if wanted {
        conflist::remove(&folder.join(conflist::FILE))?;
    }
    Ok(wanted)
}

/// Copies this executable into the folder as `cilium-cni`, and as `loopback` if the host has none. Calls in progress
/// keep the old file, and none ever sees half a file.
///
/// # Errors
///
/// The folder cannot be written, or this executable cannot be read.
pub fn install_plugin(folder: &Path) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(|source| Error { path: folder.to_owned(), source })?;
    install_from(&own, folder)
}

fn install_from(executable: &Path, folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error { path: folder.to_owned(), source })?;
    let plugin = folder.join("cilium-cni");
    let loopback = folder.join("loopback");
    let ours = is_same_file(&plugin, &loopback);
    copy(executable, &plugin).map_err(|source| Error { path: plugin.clone(), source })?;
    if ours || !loopback.exists() {
        link(&plugin, &loopback).map_err(|source| Error { path: loopback, source })?;
    }
    Ok(())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let inode = |path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    inode(one).is_some() && inode(one) == inode(other)
}

/// One file under two names: it acts on the one it is called by.
fn link(plugin: &Path, name: &Path) -> io::Result<()> {
    let temporary = temporary(name);
    let linked = fs::hard_link(plugin, &temporary).and_then(|()| fs::rename(&temporary, name));
    linked.or_else(|_| copy(plugin, name))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let temporary = temporary(to);
    let copied = fs::copy(from, &temporary)
        .and_then(|_| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, to));
    if copied.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_plugin_stays_unless_the_chart_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, net) = (folder.path().join("keys"), folder.path().join("net.d"));
        fs::create_dir_all(&keys).unwrap();
        fs::create_dir_all(&net).unwrap();
        let conflist = net.join("05-cilium.conflist");
        fs::write(&conflist, "{}").unwrap();
        assert!(!uninstall_plugin(&keys, &net).unwrap() && conflist.exists());
        fs::write(keys.join("cni-uninstall"), "perhaps\n").unwrap();
        assert!(uninstall_plugin(&keys, &net).unwrap_err().to_string().contains("cni-uninstall"));
        assert!(conflist.exists());
        fs::write(keys.join("cni-uninstall"), "true\n").unwrap();
        assert!(uninstall_plugin(&keys, &net).unwrap() && !conflist.exists());
    }

    #[test]
    fn the_plugin_is_replaced_and_a_loopback_of_the_host_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        fs::write(&first, "1").unwrap();
        fs::write(&second, "2").unwrap();
        let bin = folder.path().join("opt/cni/bin");
        install_from(&first, &bin).unwrap();
        assert_eq!(fs::read_to_string(bin.join("loopback")).unwrap(), "1");
        install_from(&second, &bin).unwrap();
        assert_eq!(fs::read_to_string(bin.join("loopback")).unwrap(), "2");
        fs::write(bin.join("loopback.own"), "own").unwrap();
        fs::rename(bin.join("loopback.own"), bin.join("loopback")).unwrap();
        install_from(&first, &bin).unwrap();
        assert_eq!(fs::read_to_string(bin.join("cilium-cni")).unwrap(), "1");
        assert_eq!(fs::read_to_string(bin.join("loopback")).unwrap(), "own");
        assert_eq!(fs::metadata(bin.join("cilium-cni")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 2);
    }
}
