// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod lab;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().and_then(|a| Path::new(a).file_name()).and_then(|n| n.to_str()).unwrap_or_default();
    if let Some(component) = Component::of(called, in_agent_image()) {
        return component.run(arguments);
    }
    let rest: Vec<OsString> = arguments.into_iter().skip(1).collect();
    let wanted = rest.first().and_then(|a| a.to_str()).unwrap_or_default();
    match Component::of(wanted, in_agent_image()) {
        Some(component) => component.run(rest),
        None => Component::Cli.run([OsString::from("cilium")].into_iter().chain(rest).collect()),
    }
}

/// In the image of the agent, `cilium` is another name of `cilium-dbg`, as users of `kubectl exec` know it.
fn in_agent_image() -> bool {
    std::env::var_os("CILIUM_IN_AGENT_IMAGE").is_some()
}

/// What the binary can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Component {
    Agent,
    Operator,
    Cni,
    Loopback,
    Mount,
    Dbg,
    Health,
    Hubble,
    Relay,
    Ui,
    Certgen,
    Curl,
    Proxy,
    ProxyStarter,
    Cli,
}

impl Component {
    fn of(name: &str, in_agent_image: bool) -> Option<Self> {
        Some(match name {
            "cilium-agent" => Self::Agent,
            "cilium-operator" | "cilium-operator-generic" => Self::Operator,
            "cilium-cni" => Self::Cni,
            "loopback" => Self::Loopback,
            "cilium-mount" => Self::Mount,
            "cilium-dbg" => Self::Dbg,
            "cilium-health" => Self::Health,
            "cilium" if in_agent_image => Self::Dbg,
            "cilium" => Self::Cli,
            "hubble" => Self::Hubble,
            "hubble-relay" => Self::Relay,
            "hubble-ui" => Self::Ui,
            "cilium-certgen" => Self::Certgen,
            "curl" => Self::Curl,
            "cilium-proxy" => Self::Proxy,
            "cilium-envoy-starter" => Self::ProxyStarter,
            _ => return None,
        })
    }

    /// A component that `cilium` runs by its first argument, with the name that it is called by otherwise.
    fn word(word: &str) -> Option<(&'static str, Self)> {
        Some(match word {
            "agent" => ("cilium-agent", Self::Agent),
            "operator" => ("cilium-operator", Self::Operator),
            "cni" => ("cilium-cni", Self::Cni),
            "dbg" => ("cilium-dbg", Self::Dbg),
            "health" => ("cilium-health", Self::Health),
            "mount" => ("cilium-mount", Self::Mount),
            "hubble" => ("hubble", Self::Hubble),
            "proxy" => ("cilium-proxy", Self::Proxy),
            _ => return None,
        })
    }

    /// Runs it with its arguments, its name first.
    fn run(self, arguments: Vec<OsString>) -> ExitCode {
        let text = || arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>();
        match self {
            Self::Agent => report("cilium-agent", agent::main(arguments)),
            Self::Operator => operator::main(arguments),
            Self::Cni => cni(&text()),
            Self::Loopback => endpoint::loopback::main(),
            Self::Mount => report("cilium-mount", agent::mount::main(text().get(1..).unwrap_or_default())),
            Self::Dbg => cli::dbg(arguments),
            Self::Health => cli::health(arguments),
            Self::Hubble => cli::hubble(arguments),
            Self::Relay => relay::main(arguments),
            Self::Ui => ui::main(arguments),
            Self::Certgen => certgen::main(arguments),
            Self::Curl => cli::curl(arguments),
            Self::Proxy => proxy::main(arguments),
            Self::ProxyStarter => proxy::starter(arguments),
            Self::Cli => match arguments.get(1).and_then(|a| a.to_str()) {
                Some("lab") => lab::run(&arguments),
                Some("hubble") if is_forwarding(arguments.get(2)) => cli::cilium(arguments),
                word => match word.and_then(Self::word) {
                    Some((name, component)) => {
                        component.run(std::iter::once(name.into()).chain(arguments.into_iter().skip(2)).collect())
                    }
                    None => cli::cilium(arguments),
                },
            },
        }
    }
}

/// Whether a word after `cilium hubble` is a command about a cluster: the others are those of `hubble`.
fn is_forwarding(word: Option<&OsString>) -> bool {
    word.is_some_and(|word| word == "ui" || word == "port-forward")
}

/// The plugin; with arguments, what its installation needs.
fn cni(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        [] => endpoint::cni::main(),
        ["install", folder] => report("cilium-cni install", endpoint::install_plugin(Path::new(folder))),
        ["uninstall", config, folder] if config.starts_with("--config-dir=") => {
            let config = config.trim_start_matches("--config-dir=");
            report("cilium-cni uninstall", uninstall(Path::new(config), Path::new(folder)))
        }
        ["uninstall", file] => report("cilium-cni uninstall", endpoint::conflist::remove(Path::new(file))),
        _ => {
            eprintln!("{CNI_USAGE}");
            ExitCode::from(2)
        }
    }
}

fn uninstall(keys: &Path, folder: &Path) -> Result<(), endpoint::UninstallError> {
    if !endpoint::uninstall_plugin(keys, folder)? {
        eprintln!("cni-uninstall is not \"true\": the configuration stays");
    }
    Ok(())
}

const CNI_USAGE: &str = "\
usage: cilium-cni                                   as a CNI plugin, by environment and standard input
       cilium-cni install DIR                       put the plugin into DIR
       cilium-cni uninstall FILE                    take its configuration FILE away
       cilium-cni uninstall --config-dir=KEYS DIR   the same in DIR, if the key cni-uninstall says so";

/// Success, or the error with its causes on one line.
fn report<E: Into<anyhow::Error>>(who: &str, result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{who}: {:#}", error.into());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Component, is_forwarding};

    #[test]
    fn every_name_of_the_image_is_a_component() {
        for name in [
            "cilium",
            "cilium-agent",
            "cilium-certgen",
            "cilium-cni",
            "cilium-dbg",
            "cilium-envoy-starter",
            "cilium-health",
            "cilium-mount",
            "cilium-operator",
            "cilium-operator-generic",
            "curl",
            "cilium-proxy",
            "hubble",
            "hubble-relay",
            "hubble-ui",
            "loopback",
        ] {
            assert!(Component::of(name, true).is_some(), "{name}");
        }
        assert_eq!(Component::of("cilium-rs", true), None);
    }

    #[test]
    fn cilium_is_the_debugging_tool_in_the_image_and_the_operators_tool_elsewhere() {
        assert_eq!(Component::of("cilium", true), Some(Component::Dbg));
        assert_eq!(Component::of("cilium", false), Some(Component::Cli));
        assert_eq!(Component::word("agent"), Some(("cilium-agent", Component::Agent)));
        assert_eq!(Component::word("status"), None);
        assert!(is_forwarding(Some(&"ui".into())) && !is_forwarding(Some(&"observe".into())) && !is_forwarding(None));
    }
}
