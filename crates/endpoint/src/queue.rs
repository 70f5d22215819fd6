// SPDX-License-Identifier: Apache-2.0
//! Queued deletions: while the agent is down, the plugin leaves a file for each, and the agent carries them out when it
//! is back.
//!
//! The lock is held only while files are read or changed: neither side makes requests under it. A deletion stays in the
//! queue until it is carried out, so that none is lost with the agent; carrying one out twice does no harm, since
//! container ids are not reused.

use crate::file::write_atomically;
use crate::rest::EndpointBatchDeleteRequest;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use statedb::{Backoff, Retries};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the files are.
pub const FOLDER: &str = "/var/run/cilium/deleteQueue";

/// More queued deletions than this mean that the agent will not return: further ones fail, and the runtime retries.
const MOST: usize = 256;

/// Whoever follows the rule above holds the lock for milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Delay between checks of a lock held by another.
const RETRY: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(50));

/// The queue could not be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("deletion queue {} is full ({MOST}); waiting for the agent", .0.display())]
    Full(PathBuf),
    /// Another process holds its lock and does not release it.
    #[error("deletion queue {} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// The file system failed.
    #[error("deletion queue {} cannot be used", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

#[derive(Clone, Debug)]
pub struct Queue {
    folder: PathBuf,
}

impl Queue {
    /// The queue in this folder, which is created if missing.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Adds the deletion of all endpoints of a container. Doing so twice is one deletion.
    ///
    /// # Errors
    ///
    /// It is full, locked by another for long, or the file system fails.
    pub async fn push(&self, container_id: &str) -> Result<(), QueueError> {
        let (path, body) = self.file(container_id)?;
        let push = move |queue: &Self| {
            let present = queue.files()?;
            if present.contains(&path) {
                return Ok(());
            }
            if present.len() >= MOST {
                return Err(QueueError::Full(queue.folder.clone()));
            }
            write_atomically(&path, &body, 0o600).map_err(|e| queue.failed(e))
        };
        self.locked(push).await
    }

    /// The queued container ids. A file without one is removed and logged; one that cannot be read right now stays.
    ///
    /// # Errors
    ///
    /// It is locked by another for long, or the file system fails.
    pub async fn pending(&self) -> Result<Vec<String>, QueueError> {
        self.locked(Self::read).await
    }

    /// Removes a container's deletion once it is carried out. Removing something absent succeeds.
    ///
    /// # Errors
    ///
    /// It is locked by another for long, or the file system fails.
    pub async fn remove(&self, container_id: &str) -> Result<(), QueueError> {
        let (path, _) = self.file(container_id)?;
        let remove = move |queue: &Self| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(queue.failed(error)),
            _ => Ok(()),
        };
        self.locked(remove).await
    }

    fn read(&self) -> Result<Vec<String>, QueueError> {
        let mut ids = Vec::new();
        for path in self.files()? {
            let content = match fs::read(&path) {
                Ok(content) => content,
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "cannot read queued deletion, keeping it");
                    continue;
                }
            };
            match serde_json::from_slice(&content) {
                Ok(EndpointBatchDeleteRequest { container_id }) => ids.push(container_id),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "dropping malformed queued deletion");
                    fs::remove_file(&path).map_err(|e| self.failed(e))?;
                }
            }
        }
        Ok(ids)
    }

    /// Does something under the lock.
    async fn locked<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let lock = tokio::time::timeout(PATIENCE, self.lock()).await;
        let lock = lock.map_err(|_| QueueError::Locked(self.folder.clone()))??;
        let queue = self.clone();
        let work = move || {
            let _lock = lock;
            work(&queue)
        };
        statedb::blocking(work).await
    }

    async fn lock(&self) -> Result<Flock<File>, QueueError> {
        let mut retries = Retries::new(RETRY);
        loop {
            let queue = self.clone();
            if let Some(lock) = statedb::blocking(move || queue.try_lock()).await? {
                return Ok(lock);
            }
            tokio::time::sleep(retries.failed()).await;
        }
    }

    fn try_lock(&self) -> Result<Option<Flock<File>>, QueueError> {
        fs::create_dir_all(&self.folder).map_err(|e| self.failed(e))?;
        let path = self.folder.join("lockfile");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        match Flock::lock(file.map_err(|e| self.failed(e))?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(self.failed(error.into())),
        }
    }

    /// The file of a container's deletion, and its content.
    fn file(&self, container_id: &str) -> Result<(PathBuf, Vec<u8>), QueueError> {
        let body = EndpointBatchDeleteRequest { container_id: container_id.to_owned() };
        let body = serde_json::to_vec(&body).map_err(|e| self.failed(e.into()))?;
        let name = hex(&Sha256::digest(&body));
        Ok((self.folder.join(format!("{name}.delete")), body))
    }

    fn files(&self) -> Result<Vec<PathBuf>, QueueError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| self.failed(e))? {
            let path = entry.map_err(|e| self.failed(e))?.path();
            if path.extension().is_some_and(|e| e == "delete") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn failed(&self, error: io::Error) -> QueueError {
        QueueError::Io(self.folder.clone(), error)
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
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test(start_paused = true)]
    async fn what_is_pushed_waits_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(&folder.path().join("q"));
        queue.push("a").await.unwrap();
        queue.push("b").await.unwrap();
        queue.push("a").await.unwrap();
        for _ in 0..2 {
            let mut ids = queue.pending().await.unwrap();
            ids.sort();
            assert_eq!(ids, ["a", "b"]);
        }
        queue.remove("a").await.unwrap();
        queue.remove("a").await.unwrap();
        assert_eq!(queue.pending().await.unwrap(), ["b"]);
        queue.remove("b").await.unwrap();
        assert!(queue.pending().await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_and_nonsense_in_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(folder.path());
        fs::write(folder.path().join("x.delete"), "nonsense").unwrap();
        for n in 1..MOST {
            queue.push(&n.to_string()).await.unwrap();
        }
        assert!(matches!(queue.push("one more").await, Err(QueueError::Full(_))));
        queue.push("1").await.unwrap();
        assert_eq!(queue.pending().await.unwrap().len(), MOST - 1);
        queue.push("one more").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_cannot_be_read_just_now_stays() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(folder.path());
        queue.push("a").await.unwrap();
        // Reading a folder fails for everybody, root too.
        let unreadable = folder.path().join("x.delete");
        fs::create_dir(&unreadable).unwrap();
        assert_eq!(queue.pending().await.unwrap(), ["a"]);
        assert!(unreadable.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_another_keeps_is_an_error_and_not_a_wait_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(folder.path());
        let kept = queue.try_lock().unwrap().unwrap();
        for refused in [queue.push("a").await, queue.pending().await.map(drop), queue.remove("a").await] {
            assert!(matches!(refused, Err(QueueError::Locked(path)) if path == folder.path()));
        }
        drop(kept);
        queue.push("a").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(folder.path());
        queue.push("a").await.unwrap();
        let file = queue.file("a").unwrap().0;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
