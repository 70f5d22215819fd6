// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin `loopback`, which container runtimes call for every pod, for hosts that lack it: ADD sets the
//! loopback device up, DEL down.

use crate::cni::{Code, Environment, Error, Version};
use datapath::netlink::{LinkChange, Netlink};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

const DEVICE: &str = "lo";

/// The plugin's process.
#[must_use]
pub fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut stdin);
    crate::cni::print(&run(&Environment::of_process(), &stdin))
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    cni_version: String,
    prev_result: Option<Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self { cni_version: Version::V0_1_0.as_str().to_owned(), prev_result: None }
    }
}

/// One call: what to print, as success or as failure.
///
/// # Errors
///
/// The error in the specification's form.
pub fn run(environment: &Environment, stdin: &[u8]) -> Result<String, String> {
    if environment.command == "VERSION" {
        return Ok(crate::cni::versions(stdin));
    }
    let decode = |e| Error::because(Code::Decode, "the network configuration is not what a CNI plugin reads", e);
    let config: Config = serde_json::from_slice(stdin).map_err(|e| decode(e).to_json(Version::LATEST))?;
    let Some(version) = Version::parse(&config.cni_version) else {
        let message = format!("cniVersion {:?} is not supported", config.cni_version);
        return Err(Error::new(Code::IncompatibleVersion, message).to_json(Version::LATEST));
    };
    let answer = dispatch(environment, version, config.prev_result).map_err(|e| e.to_json(version))?;
    Ok(answer.map(|value| format!("{value:#}\n")).unwrap_or_default())
}

fn dispatch(environment: &Environment, version: Version, previous: Option<Value>) -> Result<Option<Value>, Error> {
    match environment.command.as_str() {
        "ADD" => {
            set(&environment.netns, true)?;
            Ok(Some(previous.unwrap_or_else(|| result(&environment.netns, version))))
        }
        // A namespace that is gone has no loopback device.
        "DEL" => {
            let _ = set(&environment.netns, false);
            Ok(None)
        }
        "CHECK" | "STATUS" | "GC" => Ok(None),
        other => Err(Error::new(Code::InvalidEnvironment, format!("CNI_COMMAND {other:?} is not known"))),
    }
}

fn set(netns: &str, up: bool) -> Result<(), Error> {
    let failed = |e: &dyn std::error::Error| {
        Error::because(Code::Io, format!("CNI_NETNS {netns:?}: {DEVICE} cannot be set up"), statedb::with_causes(e))
    };
    let namespace = datapath::netns::open(Path::new(netns)).map_err(|e| failed(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
    let change = async {
        let netlink = Netlink::open_in(namespace.as_fd())?;
        if let Some(link) = netlink.link(DEVICE).await? {
            netlink.change_link(link.index, LinkChange { up: Some(up), ..LinkChange::default() }).await?;
        }
        Ok(())
    };
    runtime.block_on(change).map_err(|e: datapath::Error| failed(&e))
}

fn result(netns: &str, version: Version) -> Value {
    if version < Version::V0_3_0 {
        return json!({"cniVersion": version, "ip4": {"ip": "127.0.0.1/8"}, "dns": {}});
    }
    let mut ip = json!({"interface": 0, "address": "127.0.0.1/8"});
    if let (true, Value::Object(fields)) = (version < Version::V1_0_0, &mut ip) {
        fields.insert("version".to_owned(), json!("4"));
    }
    let interface = json!({"name": DEVICE, "mac": "00:00:00:00:00:00", "sandbox": netns});
    json!({"cniVersion": version, "interfaces": [interface], "ips": [ip], "dns": {}})
}
