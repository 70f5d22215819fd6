// SPDX-License-Identifier: Apache-2.0
//! The last configuration on disk: what a proxy starts from when the agent is away. It holds private keys, so it is its owner's only.

use l7::{Kind, Object, Snapshot, Update};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, BufWriter, IntoInnerError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// Least time between two writes.
const PAUSE: Duration = Duration::from_millis(500);
/// How many times as long as a write takes it is to the next: a large configuration that changes all the time is written more seldom.
const SELDOM: u32 = 20;

/// What was written last; nothing if there is none that can be read.
pub(crate) fn load(path: &Path) -> Option<Snapshot> {
    match fs::File::open(path).and_then(|file| parse(BufReader::new(file))) {
        Ok(snapshot) => Some(snapshot),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the last configuration cannot be read; the agent's is waited for");
            None
        }
    }
}

/// The objects of a file that are understood. Another version may have written others: the rest is better than nothing.
struct Known(Snapshot);

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Objects;
        impl<'de> Visitor<'de> for Objects {
            type Value = Known;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<Known, A::Error> {
                let mut snapshot = Snapshot::default();
                while let Some(value) = objects.next_element::<Value>()? {
                    match Object::deserialize(&value) {
                        Ok(object) => snapshot.set(object),
                        Err(error) => {
                            tracing::warn!(object = %named(&value), %error, "leaving an object of the last configuration out");
                        }
                    }
                }
                Ok(Known(snapshot))
            }
        }
        deserializer.deserialize_seq(Objects)
    }
}

/// Kind and name of what may be an object: it may hold what is nobody's to know.
fn named(value: &Value) -> String {
    let Some((kind, object)) = value.as_object().and_then(|object| object.iter().next()) else { return String::new() };
    let name = object.get("name").or_else(|| object.get("cluster")).and_then(Value::as_str);
    format!("{kind} {}", name.unwrap_or_default())
}

pub(crate) fn parse(text: impl io::Read) -> io::Result<Snapshot> {
    let Known(snapshot) = serde_json::from_reader(text)?;
    Ok(snapshot)
}

pub(crate) fn render(out: impl io::Write, snapshot: &Snapshot) -> io::Result<()> {
    let objects: Vec<&Object> = snapshot.iter().map(|(_, object)| object).collect();
    Ok(serde_json::to_writer(out, &objects)?)
}

/// Writes each snapshot, or the newest if they come quicker.
pub(crate) async fn keep(path: PathBuf, mut snapshots: watch::Receiver<Snapshot>) {
    let mut last = snapshots.borrow_and_update().clone();
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        let begun = Instant::now();
        let (to, new) = (path.clone(), snapshot.clone());
        let result = tokio::task::spawn_blocking(move || write(&to, &new)).await;
        match result {
            Ok(Ok(())) => last = snapshot,
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot persist the configuration");
            }
            Err(_) => {}
        }
        let took = begun.elapsed();
        sleep(PAUSE.max(took)).await;
        let mut newer = snapshots.clone();
        let revoked = newer.wait_for(|newest| revokes(&last, newest));
        let _ = timeout_at(begun + took * SELDOM, revoked).await;
    }
}

/// Whether something that others are trusted by is trusted no more, or is now something else. It must not be found on the disk for longer
/// than it takes to write what is there instead.
fn revokes(last: &Snapshot, newest: &Snapshot) -> bool {
    let trust = |kind: Kind| matches!(kind, Kind::Certificate | Kind::TrustAnchors | Kind::Permission);
    let Update { set, remove } = last.difference(newest);
    let replaced = |object: &Object| last.get(&object.key()).is_some_and(|_| trust(object.key().kind));
    remove.iter().any(|key| trust(key.kind)) || set.iter().any(replaced)
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
    render(&mut out, snapshot)?;
    out.into_inner().map_err(IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&new, path)?;
    // The name is the folder's, and what was there before is gone only with it.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{load, revokes, write};
    use l7::{Certificate, Object, RateLimit, Snapshot};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn two_who_write_at_a_time_leave_one_whole_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let snapshot =
            |name: &str, size: usize| -> Snapshot { [certificate(name, &"x".repeat(size))].into_iter().collect() };
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

    fn certificate(name: &str, key: &str) -> Object {
        Certificate { name: name.into(), chain: "chain".into(), key: key.into() }.into()
    }

    #[test]
    fn what_is_not_understood_is_left_out_and_the_rest_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let known = serde_json::to_value(certificate("a", "key")).unwrap();
        let newer = [
            serde_json::json!({"quicListener": {"name": "x"}}),
            serde_json::json!({"route": {"name": "r", "action": {"teleport": {}}}}),
            serde_json::json!("certificate"),
        ];
        let objects: Vec<_> = newer.iter().chain([&known]).chain(&newer).collect();
        std::fs::write(&path, serde_json::to_vec(&objects).unwrap()).unwrap();
        assert_eq!(load(&path), Some([certificate("a", "key")].into_iter().collect()));
    }

    #[test]
    fn what_is_trusted_no_more_is_not_left_on_the_disk() {
        let limit = |burst| {
            let interval = std::time::Duration::from_secs(1);
            Object::from(RateLimit { name: "l".into(), burst, requests: 1, interval, status: 429, headers: Vec::new() })
        };
        let last: Snapshot = [certificate("a", "key"), limit(1)].into_iter().collect();
        for (newest, wanted) in [
            (vec![certificate("a", "key"), limit(1)], false),
            (vec![certificate("a", "key"), limit(2)], false),
            (vec![certificate("a", "key")], false),
            (vec![certificate("a", "key"), certificate("b", "key"), limit(1)], false),
            (vec![certificate("a", "other"), limit(1)], true),
            (vec![limit(1)], true),
        ] {
            assert_eq!(revokes(&last, &newest.iter().cloned().collect()), wanted, "{newest:?}");
        }
    }

    #[test]
    fn what_was_written_is_read_and_is_its_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(load(&path), None);
        for name in ["a", "b"] {
            let snapshot: Snapshot = [certificate(name, "key")].into_iter().collect();
            write(&path, &snapshot).unwrap();
            assert_eq!(load(&path), Some(snapshot));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "[{").unwrap();
        assert_eq!(load(&path), None);
    }
}
