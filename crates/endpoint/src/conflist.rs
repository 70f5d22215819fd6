// SPDX-License-Identifier: Apache-2.0
//! The CNI configuration: the container runtime uses us as soon as it exists, so it is written only once the agent can
//! serve, and restored when somebody removes it.

use crate::config::Config;
use crate::file::write_atomically;
use rest::{State, Status, StatusResponse};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// Its file name; the runtime uses the first configuration by name.
pub const FILE: &str = "05-cilium.conflist";
/// Suffix of other CNIs' configurations that were set aside.
const BACKUP: &str = "cilium_bak";
/// The name that older releases used.
const LEGACY: &str = "05-cilium.conf";
/// How often the folder is checked.
const WATCH: Duration = Duration::from_secs(5);

/// The configuration could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("CNI configuration {}: {action} failed", path.display())]
pub struct Error {
    path: PathBuf,
    action: &'static str,
    source: io::Error,
}

/// The configuration.
#[must_use]
pub fn content(config: &Config) -> Value {
    json!({
        "cniVersion": "0.3.1",
        "name": "cilium",
        "plugins": [{"type": "cilium-cni", "enable-debug": config.debug, "log-file": config.log_file.0}],
    })
}

/// Whether it is written, in the agent's status.
pub(crate) fn fill_status(path: Option<PathBuf>) -> impl Fn(&mut StatusResponse) {
    move |status| {
        let (state, msg) = match &path {
            None => (State::Disabled, "CNI configuration management disabled".to_owned()),
            Some(path) if path.exists() => {
                (State::Ok, format!("successfully wrote CNI configuration file to {}", path.display()))
            }
            Some(path) => (State::Warning, format!("{} is not written yet", path.display())),
        };
        status.cni_file = Some(Status { state, msg });
    }
}

/// Brings the folder to the desired state; what is right is not touched.
///
/// # Errors
///
/// The folder cannot be read or written.
pub fn write(path: &Path, config: &Config) -> Result<(), Error> {
    let failed = |action| move |source| Error { path: path.to_owned(), action, source };
    let text = format!("{:#}\n", content(config));
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed("create folder"))?;
    if fs::read(path).ok().as_deref() != Some(text.as_bytes()) {
        write_atomically(path, text.as_bytes(), 0o600).map_err(failed("write"))?;
        tracing::info!(path = %path.display(), "CNI configuration written");
    }
    for other in others(folder, path, config.exclusive).map_err(failed("list folder"))? {
        let mut aside = other.clone().into_os_string();
        aside.push(format!(".{BACKUP}"));
        fs::rename(&other, &aside).map_err(failed("put others aside"))?;
        tracing::info!(path = %other.display(), "moved aside the CNI configuration of another network");
    }
    Ok(())
}

fn others(folder: &Path, own: &Path, exclusive: bool) -> io::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let known = path.extension().is_some_and(|e| ["conf", "conflist", "json"].iter().any(|k| e == *k));
        let legacy = path.file_name().is_some_and(|n| n == LEGACY);
        if path != own && !hidden && ((exclusive && known) || legacy) {
            others.push(path);
        }
    }
    Ok(others)
}

/// Removes our configuration, if any, so that the runtime does not call a plugin without an agent, and restores other
/// CNIs' configurations that were set aside. For the uninstall hook.
///
/// # Errors
///
/// The file cannot be removed.
pub fn remove(path: &Path) -> Result<(), Error> {
    let failed = |action| move |source| Error { path: path.to_owned(), action, source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(error)),
        _ => {}
    }
    let entries = match fs::read_dir(path.parent().unwrap_or(Path::new("/"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("list folder"))?,
    };
    for entry in entries {
        let aside = entry.map_err(failed("list folder"))?.path();
        if aside.extension().is_some_and(|e| e == BACKUP) && !aside.with_extension("").ends_with(LEGACY) {
            fs::rename(&aside, aside.with_extension("")).map_err(failed("bring others back"))?;
        }
    }
    Ok(())
}

/// Keeps the configuration in place from the moment the agent is ready until dropped.
pub(crate) async fn keep(path: PathBuf, config: Config, mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    let mut tick = tokio::time::interval(WATCH);
    let mut failing = false;
    loop {
        tick.tick().await;
        let (target, wanted) = (path.clone(), config.clone());
        match statedb::blocking(move || write(&target, &wanted)).await {
            Err(error) if !failing => {
                tracing::error!(error = statedb::with_causes(&error), "no pod can start on this node");
                failing = true;
            }
            result => failing = result.is_err(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_configuration_is_that_of_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.d/05-cilium.conflist");
        write(&path, &Config::default()).unwrap();
        let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let plugin = json!({"type": "cilium-cni", "enable-debug": false, "log-file": "/var/run/cilium/cilium-cni.log"});
        assert_eq!(written, json!({"cniVersion": "0.3.1", "name": "cilium", "plugins": [plugin]}));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(path.parent().unwrap()), ["05-cilium.conflist"]);
    }

    #[test]
    fn others_are_put_aside_only_when_we_are_exclusive_and_come_back_on_removal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("05-cilium.conflist");
        for name in ["10-bridge.conflist", "README", "05-cilium.conf"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let shared = Config { exclusive: false, ..Config::default() };
        write(&path, &shared).unwrap();
        assert_eq!(
            names(folder.path()),
            ["05-cilium.conf.cilium_bak", "05-cilium.conflist", "10-bridge.conflist", "README"]
        );
        write(&path, &Config::default()).unwrap();
        assert!(names(folder.path()).contains(&"10-bridge.conflist.cilium_bak".to_owned()));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(names(folder.path()), ["05-cilium.conf.cilium_bak", "10-bridge.conflist", "README"]);
    }

    #[test]
    fn without_a_folder_there_is_nothing_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        remove(&folder.path().join("net.d/05-cilium.conflist")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_before_the_agent_is_ready_and_what_is_taken_away_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("05-cilium.conflist");
        let (ready, receiver) = watch::channel(false);
        let keeper = tokio::spawn(keep(path.clone(), Config::default(), receiver));
        tokio::time::advance(WATCH * 3).await;
        assert!(!path.exists());
        ready.send_replace(true);
        for _ in 0..2 {
            tokio::time::timeout(WATCH * 3, async {
                while !path.exists() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
            .await
            .unwrap();
            fs::remove_file(&path).unwrap();
        }
        keeper.abort();
    }
}
