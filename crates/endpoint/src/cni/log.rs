// SPDX-License-Identifier: Apache-2.0
//! The plugin's log file: one line per call. A log that cannot be written never fails a call. It is in the memory of the
//! node, beside the agent's state, so it has a length: what is older than that is in one more file.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Bytes from which on a file is put aside.
const LONGEST: u64 = 10 << 20;

/// The log of a call, if any.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<File>,
    debug: bool,
    subject: String,
}

impl Log {
    /// Appends to the file, unless its name is empty or it cannot be opened.
    pub(super) fn open(path: &str, debug: bool, subject: String) -> Self {
        Self { file: (!path.is_empty()).then(|| open(Path::new(path))).flatten(), debug, subject }
    }

    pub(super) fn info(&self, message: &str) {
        self.line("info", message);
    }

    pub(super) fn warn(&self, message: &str) {
        self.line("warn", message);
    }

    pub(super) fn error(&self, message: &str) {
        self.line("error", message);
    }

    pub(super) fn debug(&self, message: &str) {
        if self.debug {
            self.line("debug", message);
        }
    }

    fn line(&self, level: &str, message: &str) {
        if let Some(mut file) = self.file.as_ref() {
            let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
            let _ = file.write_all(format!("{now} {level} {}: {message}\n", self.subject).as_bytes());
        }
    }
}

fn open(path: &Path) -> Option<File> {
    if fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() >= LONGEST) {
        let mut old = path.as_os_str().to_owned();
        old.push(".old");
        // Of calls at the same time one does it.
        let _ = fs::rename(path, old);
    }
    OpenOptions::new().create(true).append(true).open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_long_is_put_aside_in_place_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("cni.log"), folder.path().join("cni.log.old"));
        let say = |what: &str| Log::open(path.to_str().unwrap(), false, "x".into()).info(what);
        say("one");
        say("two");
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        for _ in 0..2 {
            File::options().write(true).open(&path).unwrap().set_len(LONGEST).unwrap();
            say("new");
            assert!(fs::read_to_string(&path).unwrap().ends_with("info x: new\n"));
            assert_eq!((fs::metadata(&path).unwrap().len() < 100, fs::metadata(&old).unwrap().len()), (true, LONGEST));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
