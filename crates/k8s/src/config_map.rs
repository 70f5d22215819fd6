// SPDX-License-Identifier: Apache-2.0
//! A ConfigMap as Kubernetes mounts it into a pod: a folder with one file per key.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The folder or one of its files cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("configuration {} cannot be read", path.display())]
pub struct Error {
    /// Folder or file.
    pub path: PathBuf,
    /// Cause.
    pub source: io::Error,
}

/// Values by key, trimmed. Kubernetes' own entries beside the keys, whose names begin with two dots, are skipped.
///
/// # Errors
///
/// The folder or a file in it cannot be read.
pub fn read_folder(folder: &Path) -> Result<BTreeMap<String, String>, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| Error { path, source }
    };
    let mut keys = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.starts_with("..") && path.is_file() {
            let value = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            keys.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_config_map_is_read_without_kubernetes_own_links() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("..2026_01_01")).unwrap();
        std::fs::write(folder.path().join("..2026_01_01/debug"), "true\n").unwrap();
        std::os::unix::fs::symlink("..2026_01_01", folder.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/debug", folder.path().join("debug")).unwrap();
        assert_eq!(read_folder(folder.path()).unwrap(), BTreeMap::from([("debug".to_owned(), "true".to_owned())]));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = read_folder(Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(error.to_string(), "configuration /no/such/folder cannot be read");
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }
}
