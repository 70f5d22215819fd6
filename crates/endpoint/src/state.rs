// SPDX-License-Identifier: Apache-2.0
//! Endpoints on disk, for a restarted agent: `STATE/<id>/ep_config.json`, as in Cilium.

use crate::file::{sync_folder_of, write_atomically};
use model::{Endpoint, EndpointId};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "ep_config.json";

/// The folder of endpoints.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: PathBuf,
}

/// The folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// One endpoint's.
    #[error("state of endpoint {id} in {}", folder.display())]
    Endpoint {
        id: EndpointId,
        /// The folder of all endpoints.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// That of all endpoints.
    #[error(
        "the endpoints of this node are kept in {}, which cannot be read: repair it, or move it away to have the endpoints \
         recovered from the kernel",
        folder.display()
    )]
    Folder {
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl State {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Writes an endpoint, completely or not at all. Blocking, as are all operations.
    pub(crate) fn save(&self, endpoint: &Endpoint) -> Result<(), StateError> {
        let folder = self.folder.join(endpoint.id.to_string());
        let write = || {
            fs::create_dir_all(&folder)?;
            write_atomically(&folder.join(FILE), &serde_json::to_vec_pretty(endpoint)?, 0o600)?;
            sync_folder_of(&folder)
        };
        write().map_err(|source| {
            let _ = fs::remove_dir_all(&folder);
            self.error(endpoint.id, source)
        })
    }

    /// Removes an endpoint. Removing something absent succeeds.
    pub(crate) fn remove(&self, id: EndpointId) -> Result<(), StateError> {
        match fs::remove_dir_all(self.folder.join(id.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error(id, e)),
            _ => Ok(()),
        }
    }

    /// All readable endpoints. The folder of one that cannot be parsed is set aside with a warning: the kernel may know it. One that the disk
    /// does not give now stays where it is.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, so nothing is known about any.
    pub(crate) fn load(&self) -> Result<Vec<Endpoint>, StateError> {
        let failed = |source| StateError::Folder { folder: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let mut endpoints = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.parse().ok().map(EndpointId) else { continue };
            match read(&entry.path().join(FILE)) {
                Ok(endpoint) if endpoint.id == id => endpoints.push(endpoint),
                Ok(endpoint) => self.put_aside(&name, &format!("it holds endpoint {}", endpoint.id)),
                Err(Unread::Content(error)) => self.put_aside(&name, &error.to_string()),
                Err(Unread::Disk(error)) => {
                    tracing::warn!(endpoint = name, %error, "cannot read endpoint state: file left in place");
                }
            }
        }
        endpoints.sort_by_key(|e| e.id);
        Ok(endpoints)
    }

    fn put_aside(&self, name: &str, why: &str) {
        let aside = self.folder.join(format!("{name}.unreadable"));
        tracing::warn!(endpoint = name, error = why, aside = %aside.display(), "cannot read endpoint state: file moved aside");
        let _ = fs::remove_dir_all(&aside);
        let _ = fs::rename(self.folder.join(name), aside);
    }

    fn error(&self, id: EndpointId, source: io::Error) -> StateError {
        StateError::Endpoint { id, folder: self.folder.clone(), source }
    }
}

/// Why there is no endpoint.
enum Unread {
    /// The file holds none, or there is no file.
    Content(io::Error),
    /// It may be read another time.
    Disk(io::Error),
}

fn read(path: &Path) -> Result<Endpoint, Unread> {
    let text = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unread::Content(error),
        _ => Unread::Disk(error),
    })?;
    serde_json::from_slice(&text).map_err(|error| Unread::Content(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::endpoint;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(&folder.path().join("state"));
        assert!(state.load().unwrap().is_empty());
        for id in [3, 1, 2] {
            state.save(&endpoint(id)).unwrap();
        }
        state.save(&endpoint(2)).unwrap();
        state.remove(EndpointId(3)).unwrap();
        state.remove(EndpointId(3)).unwrap();
        assert_eq!(state.load().unwrap(), [endpoint(1), endpoint(2)]);
    }

    #[test]
    fn what_cannot_be_saved_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        // A folder in the place of the file.
        fs::create_dir_all(folder.path().join("3").join(FILE)).unwrap();
        assert!(matches!(state.save(&endpoint(3)), Err(StateError::Endpoint { id: EndpointId(3), .. })));
        assert!(!folder.path().join("3").exists());
    }

    #[test]
    fn a_file_that_the_disk_does_not_give_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        state.save(&endpoint(1)).unwrap();
        // A folder in the place of the file: an error that says nothing of its content.
        fs::create_dir_all(folder.path().join("2").join(FILE)).unwrap();
        assert_eq!(state.load().unwrap(), [endpoint(1)]);
        assert!(folder.path().join("2").exists() && !folder.path().join("2.unreadable").exists());
    }

    #[test]
    fn a_file_that_cannot_be_parsed_is_put_aside_and_the_others_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        state.save(&endpoint(1)).unwrap();
        state.save(&endpoint(2)).unwrap();
        fs::write(folder.path().join("2").join(FILE), "{").unwrap();
        fs::create_dir(folder.path().join("7")).unwrap();
        assert_eq!(state.load().unwrap(), [endpoint(1)]);
        assert!(folder.path().join("2.unreadable").join(FILE).exists());
        assert_eq!(state.load().unwrap(), [endpoint(1)]);
    }
}
