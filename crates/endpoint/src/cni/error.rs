// SPDX-License-Identifier: Apache-2.0
//! The plugin's errors: a code from the CNI specification, one sentence, details.

use super::version::Version;
use serde::Serialize;

/// Codes of the CNI specification, and from 100 on those of this plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The configuration's version lacks the verb, or is not supported.
    IncompatibleVersion = 1,
    /// A field of the configuration is not supported.
    UnsupportedField = 2,
    /// No such attachment.
    UnknownContainer = 3,
    /// An environment variable is missing or wrong.
    InvalidEnvironment = 4,
    /// The kernel, a file or the agent failed.
    Io = 5,
    /// The configuration is not JSON, or not of the expected form.
    Decode = 6,
    /// The configuration is well-formed but wrong.
    InvalidConfig = 7,
    /// It may work later.
    TryAgainLater = 11,
    /// The plugin cannot serve.
    NotAvailable = 50,
    /// The agent does not report the endpoint's health.
    HealthQuery = 100,
    /// The endpoint is not healthy.
    Unhealthy = 101,
    /// The interface inside the pod is not as it was created.
    Interface = 102,
}

/// An error of the plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Error {
    pub code: Code,
    /// One sentence naming the subject.
    pub message: String,
    /// The cause.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// An error with a cause.
    pub fn because(code: Code, message: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self { code, message: message.into(), details: cause.to_string() }
    }

    /// In the specification's form.
    #[must_use]
    pub fn to_json(&self, version: Version) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer<'a> {
            cni_version: Version,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let answer =
            Answer { cni_version: version, code: self.code as u32, msg: &self.message, details: &self.details };
        serde_json::to_string_pretty(&answer).unwrap_or_default()
    }
}
