// SPDX-License-Identifier: Apache-2.0
//! The folder of the bpf file system that is ours.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;

use crate::{Error, MapSpec, Result, sys};

/// `BPF_FS_MAGIC`.
const MAGIC: i64 = 0xcafe_4a11;

/// Where everything of one version of the layouts is pinned.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The folders of this build, which need not be there.
    pub(crate) fn below(bpffs: &Path) -> Self {
        Self { root: home(bpffs).join(format!("v{}", abi::ABI_VERSION)) }
    }

    /// Makes the folders. Fails when no bpf file system is mounted: pins would be lost with the process.
    pub(crate) fn create(bpffs: &Path) -> Result<Self> {
        // The field's type differs between C libraries.
        #[allow(clippy::unnecessary_cast, reason = "not on every target")]
        let mounted = statfs(bpffs).is_ok_and(|fs| fs.filesystem_type().0 as i64 == MAGIC);
        if !mounted {
            return Err(Error::NoBpfFs { path: bpffs.into() });
        }
        let pins = Self::below(bpffs);
        for folder in [pins.maps(), pins.programs(), pins.links(), pins.filters()] {
            fs::create_dir_all(&folder).map_err(|source| failed("make", &folder, source))?;
        }
        Ok(pins)
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// The first layout of a map has its plain name, as older builds expect it.
    pub(crate) fn map(&self, spec: &MapSpec) -> PathBuf {
        self.maps().join(match spec.version {
            1 => spec.name.to_owned(),
            version => format!("{}_v{version}", spec.name),
        })
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(crate) fn link(&self, name: &str) -> PathBuf {
        self.links().join(escape(name))
    }

    /// A filter of a kernel without tcx cannot be pinned: an empty folder remembers it.
    pub(crate) fn filters(&self) -> PathBuf {
        self.root.join("filters")
    }
}

/// The folder of all versions.
pub(crate) fn home(bpffs: &Path) -> PathBuf {
    bpffs.join("cilium")
}

pub(crate) fn failed(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Pin { operation, path: path.into(), source }
}

/// Pins at that path whether or not something is there; at no moment is nothing there.
pub(crate) fn pin_over(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push("%new");
    let new = PathBuf::from(new);
    remove(&new)?;
    sys::pin(fd, &new).map_err(|source| failed("pin at", &new, source))?;
    fs::rename(&new, path).map_err(|source| failed("rename to", path, source))
}

/// Removes a file; false when there was none.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed("remove", path, source)),
    }
}

/// Names of what is in a folder; none when there is no folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("list", folder, source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| failed("list", folder, source))?;
        names.push(unescape(&entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    Ok(names)
}

/// The bpf file system refuses names with a dot, which VLAN devices have.
pub(crate) fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2e")
}

pub(crate) fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Pins, escape, unescape};
    use crate::MapSpec;

    #[test]
    fn a_later_layout_of_a_map_has_a_pin_of_its_own() {
        let pins = Pins::below(Path::new("/bpf"));
        let first = MapSpec { version: 1, ..MapSpec::of::<abi::maps::Flows>() };
        let second = MapSpec { version: 2, ..first };
        assert_eq!(pins.map(&first), Path::new("/bpf/cilium/v1/maps/cilium_flows"));
        assert_eq!(pins.map(&second), Path::new("/bpf/cilium/v1/maps/cilium_flows_v2"));
    }

    #[test]
    fn a_device_name_with_dots_makes_a_pin_name_without() {
        for name in ["dev_eth0.100_ingress", "pod_lxc1_egress", "dev_%2e_ingress"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)), name);
        }
    }
}
