// SPDX-License-Identifier: Apache-2.0
//! Deletions that wait for the agent (contracts B.2): while it is away, the plugin leaves a file for each, and the agent
//! carries them out when it is back.

use crate::rest::EndpointBatchDeleteRequest;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are.
pub const FOLDER: &str = "/var/run/cilium/deleteQueue";

/// More files than this are a sign that the agent is away for good: then deletions fail, and the runtime tries again.
const MOST: usize = 256;

/// The queue could not be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It is full.
    #[error("{MOST} deletions wait in {} already: the agent must come back first", .0.display())]
    Full(PathBuf),
    /// The file system failed.
    #[error("the queue of deletions {} cannot be used", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// The queue, locked: others wait.
#[derive(Debug)]
pub struct Queue {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Queue {
    /// Opens and locks it; makes the folder when it is missing.
    pub fn lock(folder: &Path) -> Result<Self, QueueError> {
        let failed = |e: io::Error| QueueError::Io(folder.to_owned(), e);
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join("lockfile");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Adds the deletion of all endpoints of a container. Doing so twice is one deletion.
    pub fn push(&self, container_id: &str) -> Result<(), QueueError> {
        let failed = |e: io::Error| QueueError::Io(self.folder.clone(), e);
        if self.files()?.len() >= MOST {
            return Err(QueueError::Full(self.folder.clone()));
        }
        let body = EndpointBatchDeleteRequest { container_id: container_id.to_owned() };
        let body = serde_json::to_vec(&body).map_err(|e| failed(e.into()))?;
        let name = hex(&Sha256::digest(&body));
        crate::file::write_atomically(&self.folder.join(format!("{name}.delete")), &body, 0o600).map_err(failed)
    }

    /// Takes out all container ids. What cannot be read is dropped, and named in the log.
    pub fn drain(&self) -> Result<Vec<String>, QueueError> {
        let mut ids = Vec::new();
        for path in self.files()? {
            match fs::read(&path).and_then(|b| Ok(serde_json::from_slice(&b)?)) {
                Ok(EndpointBatchDeleteRequest { container_id }) => ids.push(container_id),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a queued deletion cannot be read: dropped")
                }
            }
            fs::remove_file(&path).map_err(|e| QueueError::Io(path, e))?;
        }
        Ok(ids)
    }

    fn files(&self) -> Result<Vec<PathBuf>, QueueError> {
        let failed = |e: io::Error| QueueError::Io(self.folder.clone(), e);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|e| e == "delete") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_pushed_is_drained_once() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::lock(&folder.path().join("q")).unwrap();
        queue.push("a").unwrap();
        queue.push("b").unwrap();
        queue.push("a").unwrap();
        let mut ids = queue.drain().unwrap();
        ids.sort();
        assert_eq!(ids, ["a", "b"]);
        assert!(queue.drain().unwrap().is_empty());
    }

    #[test]
    fn a_full_queue_refuses_and_nonsense_in_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::lock(folder.path()).unwrap();
        fs::write(folder.path().join("x.delete"), "nonsense").unwrap();
        for n in 1..MOST {
            queue.push(&n.to_string()).unwrap();
        }
        assert!(matches!(queue.push("one more"), Err(QueueError::Full(_))));
        assert_eq!(queue.drain().unwrap().len(), MOST - 1);
        queue.push("one more").unwrap();
    }
}
