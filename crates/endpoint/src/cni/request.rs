// SPDX-License-Identifier: Apache-2.0
//! A request to the plugin: environment and configuration, parsed once into types that cannot be invalid.

use super::error::{Code, Error};
use super::version::Version;
use crate::reference::AttachmentId;
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// The environment of a call, as a container runtime sets it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: String,
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_NETNS`
    pub netns: String,
    /// `CNI_IFNAME`
    pub interface: String,
    /// `CNI_ARGS`
    pub args: String,
    /// Path of the agent's socket (`CILIUM_SOCK`).
    pub socket: PathBuf,
    /// Folder of queued deletions.
    pub queue: PathBuf,
    /// How long ADD waits for an agent that is starting.
    pub patience: Duration,
}

impl Environment {
    /// From the process's environment.
    #[must_use]
    pub fn of_process() -> Self {
        let var = |name| std::env::var(name).unwrap_or_default();
        let socket = var("CILIUM_SOCK");
        Self {
            command: var("CNI_COMMAND"),
            container_id: var("CNI_CONTAINERID"),
            netns: var("CNI_NETNS"),
            interface: var("CNI_IFNAME"),
            args: var("CNI_ARGS"),
            socket: if socket.is_empty() { crate::SOCKET.into() } else { socket.into() },
            queue: crate::queue::FOLDER.into(),
            patience: Duration::from_secs(30),
        }
    }

    /// Container id and interface name, validated.
    pub(super) fn attachment(&self) -> Result<AttachmentId, Error> {
        check_container_id(&self.container_id)?;
        check_interface(&self.interface)?;
        Ok(AttachmentId { container_id: self.container_id.clone(), interface: self.interface.clone() })
    }

    /// The namespace's path; required.
    pub(super) fn netns(&self) -> Result<&str, Error> {
        if self.netns.is_empty() {
            return Err(Error::new(
                Code::InvalidEnvironment,
                "CNI_NETNS is not set: want the path of the pod's network namespace",
            ));
        }
        Ok(&self.netns)
    }
}

fn check_container_id(id: &str) -> Result<(), Error> {
    let valid = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if valid {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidEnvironment,
        format!("CNI_CONTAINERID {id:?} is not a container id: want letters, digits, dots, dashes and underscores"),
    ))
}

fn check_interface(name: &str) -> Result<(), Error> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > 15 {
        "it is longer than 15 bytes"
    } else if name == "." || name == ".." || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        "it holds a slash, a colon or a space, or is a dot"
    } else {
        return Ok(());
    };
    Err(Error::new(Code::InvalidEnvironment, format!("CNI_IFNAME {name:?} cannot name an interface: {why}")))
}

/// The pod that `CNI_ARGS` names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodArgs {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl PodArgs {
    /// Parses `KEY=VALUE;KEY=VALUE`; unknown keys are ignored.
    pub(super) fn parse(args: &str) -> Result<Self, Error> {
        let mut pod = Self::default();
        for pair in args.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Error::new(Code::InvalidEnvironment, format!("CNI_ARGS: {pair:?} is not KEY=VALUE")));
            };
            match key {
                "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
                "K8S_POD_NAME" => value.clone_into(&mut pod.name),
                "K8S_POD_UID" => value.clone_into(&mut pod.uid),
                _ => {}
            }
        }
        if pod.namespace.is_empty() || pod.name.is_empty() {
            return Err(Error::new(Code::InvalidEnvironment, "CNI_ARGS lacks K8S_POD_NAMESPACE or K8S_POD_NAME"));
        }
        Ok(pod)
    }

    /// Owner of its addresses, in the agent's notation.
    pub(super) fn owner(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The network configuration: the keys that we read. Others are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    #[serde(rename = "cniVersion")]
    version: Option<String>,
    pub(super) name: String,
    /// MTU of the interface, instead of the agent's.
    pub(super) mtu: u32,
    #[serde(rename = "enable-debug")]
    pub(super) debug: bool,
    #[serde(rename = "log-file")]
    pub(super) log_file: String,
    #[serde(rename = "chaining-mode")]
    chaining_mode: String,
    ipam: Ipam,
    #[serde(rename = "prevResult")]
    pub(super) previous: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub(super) valid_attachments: Option<Vec<ValidAttachment>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Ipam {
    #[serde(rename = "type")]
    kind: String,
}

/// An attachment that the runtime knows (verb GC).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    #[serde(rename = "ifname")]
    pub(super) interface: String,
}

impl Config {
    pub(super) fn parse(stdin: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(stdin).map_err(|e| {
            Error::because(
                Code::Decode,
                "the network configuration on standard input is not what a CNI plugin reads",
                e,
            )
        })
    }

    /// The version of the result that the caller wants; the first one if absent.
    pub(super) fn version(&self) -> Result<Version, Error> {
        let text = self.version.as_deref().unwrap_or(Version::V0_1_0.as_str());
        Version::parse(text).ok_or_else(|| {
            let known: Vec<_> = Version::ALL.iter().map(|v| v.as_str()).collect();
            let message = format!("network {:?}: cniVersion {text:?} is not supported", self.name);
            Error::because(Code::IncompatibleVersion, message, format!("supported are {}", known.join(", ")))
        })
    }

    /// Rejects what only another mode of operation could honour.
    pub(super) fn check(&self, command: &str) -> Result<(), Error> {
        let name = &self.name;
        if !self.chaining_mode.is_empty() && self.chaining_mode != "none" {
            let message = format!("network {name:?}: chaining-mode {:?} is not supported", self.chaining_mode);
            return Err(Error::new(Code::UnsupportedField, message));
        }
        if !self.ipam.kind.is_empty() {
            let message =
                format!("network {name:?}: ipam.type {:?}: the agent assigns addresses, leave it out", self.ipam.kind);
            return Err(Error::new(Code::UnsupportedField, message));
        }
        if command == "ADD" && self.previous.is_some() {
            let message =
                format!("network {name:?}: prevResult is set without chaining-mode: put cilium-cni first in the list");
            return Err(Error::new(Code::InvalidConfig, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(container_id: &str, interface: &str) -> Environment {
        Environment { container_id: container_id.into(), interface: interface.into(), ..Environment::default() }
    }

    #[test]
    fn an_interface_name_that_the_kernel_would_refuse_is_refused_first() {
        assert!(environment("abc", "eth0").attachment().is_ok());
        for (bad, word) in
            [("", "empty"), ("a234567890123456", "longer"), ("a/b", "slash"), ("a b", "space"), ("..", "dot")]
        {
            let error = environment("abc", bad).attachment().unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert!(error.message.contains("CNI_IFNAME") && error.message.contains(word), "{}", error.message);
        }
    }

    #[test]
    fn a_container_id_of_other_characters_is_refused() {
        for bad in ["", "-a", "a/b", "a b", "ä"] {
            assert_eq!(environment(bad, "eth0").attachment().unwrap_err().code, Code::InvalidEnvironment, "{bad}");
        }
    }

    #[test]
    fn the_pod_is_read_from_the_arguments() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u";
        let pod = PodArgs { namespace: "a".into(), name: "b".into(), uid: "u".into() };
        assert_eq!(PodArgs::parse(args).unwrap(), pod);
        for bad in ["", "K8S_POD_NAME=b", "K8S_POD_NAME"] {
            assert_eq!(PodArgs::parse(bad).unwrap_err().code, Code::InvalidEnvironment, "{bad}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_honoured_is_refused_with_its_field() {
        let check = |json: &str| Config::parse(json.as_bytes()).unwrap().check("ADD");
        assert_eq!(check(r#"{"name":"n","chaining-mode":"aws-cni"}"#).unwrap_err().code, Code::UnsupportedField);
        assert_eq!(check(r#"{"name":"n","ipam":{"type":"host-local"}}"#).unwrap_err().code, Code::UnsupportedField);
        assert_eq!(check(r#"{"name":"n","prevResult":{}}"#).unwrap_err().code, Code::InvalidConfig);
        assert!(check(r#"{"name":"n","unknown":1,"runtimeConfig":{}}"#).is_ok());
        assert_eq!(Config::parse(b"{").unwrap_err().code, Code::Decode);
        assert_eq!(
            Config::parse(br#"{"cniVersion":"9.0.0"}"#).unwrap().version().unwrap_err().code,
            Code::IncompatibleVersion
        );
        assert_eq!(Config::parse(b"{}").unwrap().version().unwrap(), Version::V0_1_0);
    }
}
