// SPDX-License-Identifier: Apache-2.0
//! The replacement of kube-proxy in the agent's status.

use crate::Config;
use rest::{KubeProxyReplacementFeatures, StatusResponse, Switch};

/// Fills in all but the devices, which the node knows.
pub(crate) fn fill(config: &Config) -> impl Fn(&mut StatusResponse) + use<> {
    let (on, exposes) = (config.socket_lb(), config.exposes());
    let switch = |enabled| Some(Switch { enabled });
    move |status| {
        let replacement = status.kube_proxy_replacement.get_or_insert_default();
        replacement.mode = if on { "True" } else { "False" }.to_owned();
        replacement.features = Some(KubeProxyReplacementFeatures {
            socket_lb: switch(on),
            graceful_termination: switch(on),
            session_affinity: switch(on),
            external_ips: switch(exposes),
            host_port: switch(exposes),
            ..KubeProxyReplacementFeatures::default()
        });
    }
}
