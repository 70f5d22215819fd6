// SPDX-License-Identifier: Apache-2.0
//! Turns a namespace into a node: a port of the bridge, its own folders, containerd, the kubelet, and kube-proxy if asked for.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cgroup::Hierarchy;
use crate::machine::{self, Machine, Plug, Role};
use crate::namespace;
use crate::state::{self, KubeProxy, Lab};
use crate::supervise::Service;
use crate::topology::{CONTROL, Place};

/// Where containerd listens, inside the node.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";
const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// Switches a node on. Its services start as soon as their prerequisites exist.
pub(crate) fn start(lab: &Lab, place: &Place) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    hierarchy.create(&lab.spec.name, &place.name)?;
    let folder = lab.machine(&place.name);
    state::write(&folder.join("containerd.toml"), containerd_config())?;
    state::write(&folder.join("kubelet.json"), kubelet_config(lab, place, &hierarchy)?)?;
    state::write(&folder.join("resolv.conf"), "# the lab has no name server outside of the cluster\n")?;
    let mut services = vec![containerd(lab, place), kubelet(lab, place)];
    if let Some(mode) = lab.spec.kube_proxy {
        services.push(kube_proxy(lab, place, mode)?);
    }
    let machine = Machine {
        name: place.name.clone(),
        lab: lab.spec.name.clone(),
        hierarchy,
        addresses: place.addresses.clone(),
        role: Role::Node(Plug {
            control: namespace::first_process(lab, CONTROL)?,
            mac: place.mac.clone(),
            gateways: lab.spec.topology.control(),
            binds: binds(lab, place),
        }),
        services,
        path: machine::path(&lab.spec.kube_bin),
        folder,
    };
    machine.start()
}

/// The folders every node has for itself. They survive a reboot, as a disk would.
fn binds(lab: &Lab, place: &Place) -> Vec<(PathBuf, PathBuf)> {
    let own =
        ["etc/cni", "opt/cni", "var/lib/kubelet", "var/lib/containerd", "var/lib/cilium", "var/lib/cni", "var/log"];
    let disk = lab.machine(&place.name).join("disk");
    own.iter().map(|path| (disk.join(path), PathBuf::from("/").join(path))).collect()
}

fn containerd(lab: &Lab, place: &Place) -> Service {
    let config = lab.machine(&place.name).join("containerd.toml");
    let command = [lab.program("containerd"), "--config".into(), config];
    Service { name: "containerd".to_owned(), command: words(&command), after: vec![] }
}

fn kubelet(lab: &Lab, place: &Place) -> Service {
    let addresses: Vec<String> = place.addresses.iter().map(ToString::to_string).collect();
    let mut command = words(&[lab.program("kubelet")]);
    command.extend([
        format!("--config={}", lab.machine(&place.name).join("kubelet.json").display()),
        format!("--kubeconfig={}", lab.pki(&format!("{}.kubeconfig", place.name)).display()),
        format!("--hostname-override={}", place.name),
        format!("--node-ip={}", addresses.join(",")),
    ]);
    Service { name: "kubelet".to_owned(), command, after: vec![CONTAINERD.into(), lab.ready_mark()] }
}

fn kube_proxy(lab: &Lab, place: &Place, mode: KubeProxy) -> Result<Service> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": lab.pki("kube-proxy.kubeconfig")},
        "clusterCIDR": lab.spec.topology.pod_cidrs(),
        "hostnameOverride": place.name,
        "mode": mode,
        // These two are settings of the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0},
    });
    let file = lab.machine(&place.name).join("kube-proxy.json");
    state::write(&file, serde_json::to_string_pretty(&config)?)?;
    let command = [lab.program("kube-proxy"), "--config".into(), file];
    Ok(Service { name: "kube-proxy".to_owned(), command: words(&command), after: vec![lab.ready_mark()] })
}

fn words(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

fn containerd_config() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = "{CONTAINERD}"

[plugins."io.containerd.metadata.v1.bolt"]
no_sync = true

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{SANDBOX_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
# Lowering it takes a capability that a lab inside of a container may not have.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
"#
    )
}

fn kubelet_config(lab: &Lab, place: &Place, hierarchy: &Hierarchy) -> Result<String> {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": lab.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": lab.pki(&format!("{}.crt", place.name)),
        "tlsPrivateKeyFile": lab.pki(&format!("{}.key", place.name)),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "clusterDomain": "cluster.local",
        "clusterDNS": lab.spec.topology.dns_services(),
        "resolvConf": lab.machine(&place.name).join("resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "maxPods": 250,
        "serializeImagePulls": false,
        "localStorageCapacityIsolation": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    });
    if !hierarchy.pure() {
        let controllers_of_v1 = json!({
            "failCgroupV1": false,
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
        });
        if let (Some(config), Some(more)) = (config.as_object_mut(), controllers_of_v1.as_object()) {
            config.extend(more.clone());
        }
    }
    serde_json::to_string_pretty(&config).context("cannot write the kubelet's configuration")
}
