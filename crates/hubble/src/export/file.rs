// SPDX-License-Identifier: Apache-2.0
//! A file of lines that is rotated by size. Whatever happens, it ends with a complete line.

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::libc::{ELOOP, O_NOFOLLOW, O_NONBLOCK};
use std::fs::TryLockError;
use std::io::{self, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// What the name of a compressed file ends with.
const COMPRESSED: &str = ".gz";

/// Rotation limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    /// Bytes.
    pub(super) size: u64,
    pub(super) backups: usize,
    /// Whether those are compressed.
    pub(super) compress: bool,
}

/// The current file, which nobody else writes to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
}

impl LogFile {
    /// Opens it for appending, truncating an incomplete last line. Nothing is written to where a link leads, or to a pipe or the like.
    pub(super) async fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let mut options = OpenOptions::from(private());
        let file = options.read(true).create(true).truncate(false).open(path).await.map_err(|error| {
            if error.raw_os_error() == Some(ELOOP) { io::Error::other("it is a symbolic link") } else { error }
        })?;
        if !file.metadata().await?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let file = file.into_std().await;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another exporter writes to it"),
            TryLockError::Error(error) => error,
        })?;
        let mut file = File::from_std(file);
        let size = whole_lines(&mut file).await?;
        file.set_len(size).await?;
        file.seek(SeekFrom::Start(size)).await?;
        Ok(Self { path: path.to_owned(), file, size, rotation })
    }

    /// Whether the path still leads to it, and nobody else has changed its length.
    pub(super) async fn is_in_place(&self) -> bool {
        let (Ok(own), Ok(found)) = (self.file.metadata().await, tokio::fs::symlink_metadata(&self.path).await) else {
            return false;
        };
        (own.dev(), own.ino(), self.size) == (found.dev(), found.ino(), found.len())
    }

    /// Appends complete lines, all of them or none.
    pub(super) async fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.rotation.size {
            self.rotate().await?;
        }
        let written = async {
            self.file.write_all(lines).await?;
            self.file.flush().await
        };
        if let Err(error) = written.await {
            // The first error is the informative one.
            let _ = self.file.set_len(self.size).await;
            let _ = self.file.seek(SeekFrom::Start(self.size)).await;
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    async fn rotate(&mut self) -> io::Result<()> {
        let backup = aside(&self.path, OffsetDateTime::now_utc());
        tokio::fs::rename(&self.path, &backup).await?;
        if self.rotation.compress {
            // Flows do not wait for it.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = compress(&backup) {
                    tracing::warn!(path = %backup.display(), %error, "cannot compress a rotated file of flows");
                }
            });
        }
        let old = backups(&self.path).await?;
        for path in old.iter().take(old.len().saturating_sub(self.rotation.backups)) {
            match tokio::fs::remove_file(path).await {
                // Somebody was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        *self = Self::open(&self.path, self.rotation).await?;
        Ok(())
    }
}

/// Puts a compressed file in the place of a file: whole, or not at all.
fn compress(path: &Path) -> io::Result<()> {
    let (whole, part) = (suffixed(path, COMPRESSED), suffixed(path, ".part"));
    let written = (|| {
        let mut out = GzEncoder::new(private().create(true).truncate(true).open(&part)?, Compression::default());
        io::copy(&mut std::fs::File::open(path)?, &mut out)?;
        out.finish()?;
        std::fs::rename(&part, &whole)
    })();
    if written.is_err() {
        // The first error is the informative one.
        let _ = std::fs::remove_file(&part);
        return written;
    }
    match std::fs::remove_file(path) {
        // It was the oldest one too many.
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::remove_file(whole),
        removed => removed,
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// For files that others need not read. Nobody waits for a reader of a pipe.
fn private() -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    options
}

/// Where the last complete line ends. Lines are short compared to what is read.
async fn whole_lines(file: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 1 << 20;
    let end = file.metadata().await?.len();
    let start = end.saturating_sub(BLOCK);
    file.seek(SeekFrom::Start(start)).await?;
    let mut tail = Vec::new();
    file.take(BLOCK).read_to_end(&mut tail).await?;
    Ok(tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| start + at as u64 + 1))
}

/// The parts of the name before and after the time of rotation: `events-2026-01-31T12-00-00.000000000.log`.
fn affixes(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (format!("{}-", text(path.file_stem()).unwrap_or_default()), extension)
}

fn aside(path: &Path, time: OffsetDateTime) -> PathBuf {
    let format = format_description!("[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:9]");
    let (prefix, suffix) = affixes(path);
    path.with_file_name(format!("{prefix}{}{suffix}", time.format(format).unwrap_or_default()))
}

/// Rotated files, oldest first.
pub(super) async fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (prefix, suffix) = affixes(path);
    let mut found = Vec::new();
    let mut entries = tokio::fs::read_dir(path.parent().unwrap_or(Path::new("."))).await?;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name);
        let time = plain.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&suffix));
        // Only names made by `aside`.
        if time.is_some_and(|time| time.len() == 29 && time.chars().all(|c| c.is_ascii_digit() || "-T.".contains(c))) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
