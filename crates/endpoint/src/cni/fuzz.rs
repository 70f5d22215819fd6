// SPDX-License-Identifier: Apache-2.0
//! Fuzz target: a call of the plugin, up to where it would have an effect.

use super::request::{Config, Environment, PodArgs};

/// Three lines of environment (container id, interface, arguments), and the configuration.
pub fn call(data: &[u8]) {
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let environment = Environment { container_id: text(), interface: text(), args: text(), ..Environment::default() };
    if let Ok(attachment) = environment.attachment() {
        assert!(!attachment.container_id.is_empty() && !attachment.interface.contains('/'), "{attachment}");
    }
    if let Ok(pod) = PodArgs::parse(&environment.args) {
        assert!(!pod.namespace.is_empty() && !pod.name.is_empty(), "{pod:?}");
    }
    if let Ok(config) = Config::parse(parts.next().unwrap_or_default()) {
        drop(config.version());
        assert!(config.previous.is_none() || config.check("ADD").is_err(), "{config:?}");
    }
}
