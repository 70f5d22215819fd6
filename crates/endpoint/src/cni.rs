// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin: a short-lived process between the container runtime and the agent. It creates the pod's interface,
//! asks the agent for addresses and for the datapath, and undoes its work if any of that fails.
//!
//! One thread and one connection: a whole ADD should take about ten milliseconds.

mod add;
mod client;
mod del;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod log;
pub(crate) mod netns;
mod request;
mod result;
mod verbs;
mod version;
pub(crate) mod wire;

pub use error::{Code, Error};
pub use request::Environment;
pub use version::Version;

use log::Log;
use request::Config;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::ExitCode;
use tokio::time::Instant;

/// The plugin's process: reads the environment and standard input, replies on standard output.
#[must_use]
pub fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let environment = Environment::of_process();
    let answer = match std::io::stdin().read_to_end(&mut stdin) {
        Ok(_) => run(&environment, &stdin),
        Err(e) => {
            let error = Error::because(Code::Io, "the network configuration cannot be read from standard input", e);
            Err(error.to_json(Version::LATEST))
        }
    };
    print(&answer)
}

/// Writes the result; the exit status says which kind it is.
pub(crate) fn print(answer: &Result<String, String>) -> ExitCode {
    let (Ok(text) | Err(text)) = answer;
    let written = std::io::stdout().write_all(text.as_bytes());
    if answer.is_ok() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One call: what to print, as success or as failure.
///
/// # Errors
///
/// The error in the specification's form.
pub fn run(environment: &Environment, stdin: &[u8]) -> Result<String, String> {
    if environment.command == "VERSION" {
        return Ok(versions(stdin));
    }
    let config = Config::parse(stdin).map_err(|e| e.to_json(Version::LATEST))?;
    let version = config.version().map_err(|e| e.to_json(Version::LATEST))?;
    let log = Log::open(
        &config.log_file,
        config.debug,
        format!("{} container={} interface={}", environment.command, environment.container_id, environment.interface),
    );
    let start = Instant::now();
    let answer = dispatch(&Call { environment, config: &config, version, log: &log });
    let took = format!("after {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    match &answer {
        Ok(_) => log.info(&format!("done {took}")),
        Err(error) => log.error(&format!("failed {took}, code {}: {error}", error.code as u32)),
    }
    match answer {
        Ok(Some(value)) => Ok(format!("{value:#}\n")),
        Ok(None) => Ok(String::new()),
        Err(error) => Err(error.to_json(version)),
    }
}

/// A call with its input.
pub(crate) struct Call<'a> {
    environment: &'a Environment,
    config: &'a Config,
    version: Version,
    log: &'a Log,
}

fn dispatch(call: &Call<'_>) -> Result<Option<Value>, Error> {
    let command = call.environment.command.as_str();
    let (since, known) = match command {
        "ADD" | "DEL" => (Version::V0_1_0, true),
        "CHECK" => (Version::V0_4_0, true),
        "STATUS" | "GC" => (Version::V1_1_0, true),
        _ => (Version::V0_1_0, false),
    };
    if !known {
        let message = format!("CNI_COMMAND {command:?} is not ADD, DEL, CHECK, STATUS, GC or VERSION");
        return Err(Error::new(Code::InvalidEnvironment, message));
    }
    if call.version < since {
        let message = format!("network {:?}: {command} needs cniVersion {since} or later", call.config.name);
        return Err(Error::new(Code::IncompatibleVersion, message));
    }
    call.config.check(command)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::because(Code::Io, "the plugin cannot start", e))?;
    runtime.block_on(async {
        match command {
            "ADD" => add::add(call).await.map(Some),
            "DEL" => del::del(call).await.map(|()| None),
            "CHECK" => verbs::check(call).await.map(|()| None),
            "STATUS" => verbs::status(call).await.map(|()| None),
            _ => verbs::gc(call).await.map(|()| None),
        }
    })
}

pub(crate) fn versions(stdin: &[u8]) -> String {
    let asked = serde_json::from_slice::<Value>(stdin).ok();
    let asked = asked.as_ref().and_then(|v| v.get("cniVersion")).and_then(Value::as_str).and_then(Version::parse);
    format!("{:#}\n", json!({"cniVersion": asked.unwrap_or(Version::LATEST), "supportedVersions": Version::ALL}))
}

/// Name of the host side of an attachment's veth pair. It is derived from the attachment alone, so that DEL finds it
/// without the agent and without the namespace.
pub(crate) fn host_interface(attachment: &crate::reference::AttachmentId) -> String {
    use sha2::{Digest, Sha256};
    let digest = crate::queue::hex(&Sha256::digest(attachment.to_string()));
    format!("lxc{}", digest.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests;
