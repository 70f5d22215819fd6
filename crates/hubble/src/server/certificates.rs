// SPDX-License-Identifier: Apache-2.0
//! Certificates of one listener, for as long as it serves: read at first, renewed without a restart, and warned of before they end.

use super::tls::{self, Contents, TlsError};
use super::{CertificateEnd, Problems, TlsFile, TlsFiles, note, report};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;

/// How long before its end a certificate is warned of.
const SOON: time::Duration = time::Duration::days(30);

/// What is served, with what.
pub(crate) struct Certificates<'a> {
    pub(crate) files: &'a TlsFiles,
    /// The protocol that clients may speak.
    pub(crate) protocol: &'static [u8],
    /// The names of the listener, and of its certificate that ends soon, among problems.
    pub(crate) listener: &'static str,
    pub(crate) ending: &'static str,
    pub(crate) problems: &'a Problems,
    pub(crate) end: &'a CertificateEnd,
    /// Between looks at the files.
    pub(crate) pace: Duration,
}

impl Certificates<'_> {
    /// The configuration now, and whoever changes it.
    pub(crate) async fn read(&self) -> Result<(Contents, watch::Sender<Arc<ServerConfig>>), TlsError> {
        let contents = tls::read(self.files).await?;
        let config = contents.config(self.files, self.protocol)?;
        self.watch_end(&contents);
        Ok((contents, watch::Sender::new(config)))
    }

    /// Picks up changed files for future connections. Invalid files change nothing.
    pub(crate) async fn renew(&self, mut used: Contents, config: watch::Sender<Arc<ServerConfig>>) -> Infallible {
        loop {
            tokio::time::sleep(self.pace).await;
            let outcome = match tls::read(self.files).await {
                Ok(contents) if contents == used => Ok(None),
                Ok(contents) => contents.config(self.files, self.protocol).map(|config| Some((contents, config))),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(None) => drop(self.problems.lock().remove(self.listener)),
                Ok(Some((contents, renewed))) => {
                    used = contents;
                    config.send_replace(renewed);
                    self.problems.lock().remove(self.listener);
                    tracing::info!(listener = self.listener, "reloaded the certificates of a listener");
                }
                Err(error) => {
                    note(self.problems, self.listener, &format!("{error}; certificates read before stay in use"));
                }
            }
            self.watch_end(&used);
        }
    }

    /// Warns while the certificate in use has not long to live.
    fn watch_end(&self, used: &Contents) {
        let Some(end) = used.ends() else { return };
        self.end.0.set(end);
        let soon = OffsetDateTime::from_unix_timestamp(end).ok().filter(|end| *end < OffsetDateTime::now_utc() + SOON);
        let warning = soon.map(|end| {
            let TlsFile { option, path } = &self.files.certificate;
            format!("{option}: {} ends on {}", path.display(), end.date())
        });
        report(self.problems, self.ending, warning);
    }
}
