// SPDX-License-Identifier: Apache-2.0
//! The plugin's log file: one line per call. A log that cannot be written never fails a call.

use std::fs::{File, OpenOptions};
use std::io::Write;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
        let file = (!path.is_empty()).then(|| OpenOptions::new().create(true).append(true).open(path).ok()).flatten();
        Self { file, debug, subject }
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
