// SPDX-License-Identifier: Apache-2.0
//! The last configuration on disk: what a proxy starts from when the agent is away. It holds private keys, so it is its owner's only.

use l7::{Object, Snapshot};
use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Least time between two writes; a large configuration that changes all the time is written more seldom.
const PAUSE: Duration = Duration::from_millis(500);

/// What was written last; nothing if there is none that can be read.
pub(crate) fn load(path: &Path) -> Option<Snapshot> {
    let read = || -> io::Result<Snapshot> {
        let file = BufReader::new(fs::File::open(path)?);
        let objects: Vec<Object> = serde_json::from_reader(file)?;
        Ok(objects.into_iter().collect())
    };
    match read() {
        Ok(snapshot) => Some(snapshot),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the last configuration cannot be read; the agent's is waited for");
            None
        }
    }
}

/// Writes each snapshot, or the newest if they come quicker.
pub(crate) async fn keep(path: PathBuf, mut snapshots: watch::Receiver<Snapshot>) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        let begun = Instant::now();
        let to = path.clone();
        let result = tokio::task::spawn_blocking(move || write(&to, &snapshot)).await;
        if let Ok(Err(error)) = result {
            tracing::warn!(path = %path.display(), %error, "the configuration cannot be kept");
        }
        sleep(PAUSE.max(begun.elapsed() * 20)).await;
    }
}

/// One process at a time: the one before and this one may share the folder, and neither may rename what the other has only begun.
fn write(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let turn =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.with_extension("lock"))?;
    // It ends with the file, and so with the process.
    turn.lock()?;
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let mut out = BufWriter::new(file);
    let objects: Vec<&Object> = snapshot.iter().map(|(_, object)| object).collect();
    serde_json::to_writer(&mut out, &objects)?;
    out.flush()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::{load, write};
    use l7::{Certificate, Object, Snapshot};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn two_who_write_at_a_time_leave_one_whole_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let snapshot = |name: &str, size: usize| -> Snapshot {
            let certificate =
                Certificate { name: name.into(), chain: "x".repeat(size).as_str().into(), key: "key".into() };
            [Object::from(certificate)].into_iter().collect()
        };
        let both = [snapshot("a", 1 << 18), snapshot("b", 1 << 10)];
        let (path, both) = (&path, &both);
        std::thread::scope(|scope| {
            for one in both {
                scope.spawn(move || {
                    for _ in 0..100 {
                        write(path, one).unwrap();
                        assert!(both.contains(&load(path).unwrap()));
                    }
                });
            }
        });
    }

    #[test]
    fn what_was_written_is_read_and_is_its_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(load(&path), None);
        for name in ["a", "b"] {
            let certificate = Certificate { name: name.into(), chain: "chain".into(), key: "key".into() };
            let snapshot: Snapshot = [Object::from(certificate)].into_iter().collect();
            write(&path, &snapshot).unwrap();
            assert_eq!(load(&path), Some(snapshot));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "[{").unwrap();
        assert_eq!(load(&path), None);
    }
}
