// SPDX-License-Identifier: Apache-2.0
//! The control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler as separate programs.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cgroup::Hierarchy;
use crate::machine::{self, Machine, Role};
use crate::state::Lab;
use crate::supervise::Service;
use crate::topology::{API_PORT, CONTROL};

/// Switches on the control plane; returns before the API server is ready.
pub(crate) fn start(lab: &Lab) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    hierarchy.create(&lab.spec.name, CONTROL)?;
    let addresses = lab.spec.topology.control();
    let first = *addresses.first().context("the lab has neither IPv4 nor IPv6")?;
    let machine = Machine {
        name: CONTROL.to_owned(),
        folder: lab.machine(CONTROL),
        lab: lab.spec.name.clone(),
        hierarchy,
        role: Role::Control { forward_to: SocketAddr::new(first, API_PORT) },
        services: vec![etcd(lab), api_server(lab, &first.to_string()), controller_manager(lab), scheduler(lab)],
        path: machine::path(&lab.spec.kube_bin),
        addresses,
    };
    machine.start()
}

fn etcd(lab: &Lab) -> Service {
    let arguments = vec![
        format!("--data-dir={}", lab.machine(CONTROL).join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--log-level=warn".to_owned(),
        // A lab may lose its data with the machine, and is several times faster for it.
        "--unsafe-no-fsync".to_owned(),
    ];
    service(lab, "etcd", arguments, vec![])
}

fn api_server(lab: &Lab, advertised: &str) -> Service {
    let pki = |name: &str, file: &str| format!("--{name}={}", lab.pki(file).display());
    let arguments = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={advertised}"),
        format!("--bind-address={}", if lab.spec.topology.ipv6 { "::" } else { "0.0.0.0" }),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={}", lab.spec.topology.service_cidrs()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        // Exec, logs and port-forward use the nodes' addresses, since no DNS knows their names.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--shutdown-delay-duration=0s".to_owned(),
        pki("client-ca-file", "ca.crt"),
        pki("tls-cert-file", "apiserver.crt"),
        pki("tls-private-key-file", "apiserver.key"),
        pki("kubelet-certificate-authority", "ca.crt"),
        pki("kubelet-client-certificate", "apiserver-kubelet.crt"),
        pki("kubelet-client-key", "apiserver-kubelet.key"),
        pki("service-account-key-file", "service-accounts.pub"),
        pki("service-account-signing-key-file", "service-accounts.key"),
        pki("requestheader-client-ca-file", "front-proxy-ca.crt"),
        pki("proxy-client-cert-file", "front-proxy.crt"),
        pki("proxy-client-key-file", "front-proxy.key"),
    ];
    service(lab, "kube-apiserver", arguments, vec![])
}

fn controller_manager(lab: &Lab) -> Service {
    let pki = |name: &str, file: &str| format!("--{name}={}", lab.pki(file).display());
    let arguments = vec![
        "--allocate-node-cidrs=true".to_owned(),
        format!("--cluster-cidr={}", lab.spec.topology.pod_cidrs()),
        format!("--service-cluster-ip-range={}", lab.spec.topology.service_cidrs()),
        "--use-service-account-credentials=true".to_owned(),
        // Its controllers start one after the other, with a few requests each: the default rate limit would cost seconds.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
        "--leader-elect=false".to_owned(),
        // A node that is cut off is noticed within seconds rather than most of a minute.
        "--node-monitor-period=2s".to_owned(),
        "--node-monitor-grace-period=20s".to_owned(),
        pki("kubeconfig", "controller-manager.kubeconfig"),
        pki("root-ca-file", "ca.crt"),
        pki("cluster-signing-cert-file", "ca.crt"),
        pki("cluster-signing-key-file", "ca.key"),
        pki("service-account-private-key-file", "service-accounts.key"),
    ];
    service(lab, "kube-controller-manager", arguments, vec![lab.ready_mark()])
}

fn scheduler(lab: &Lab) -> Service {
    let arguments =
        vec![format!("--kubeconfig={}", lab.pki("scheduler.kubeconfig").display()), "--leader-elect=false".to_owned()];
    service(lab, "kube-scheduler", arguments, vec![lab.ready_mark()])
}

fn service(lab: &Lab, name: &str, arguments: Vec<String>, after: Vec<PathBuf>) -> Service {
    let program = lab.program(name).to_string_lossy().into_owned();
    Service { name: name.to_owned(), command: std::iter::once(program).chain(arguments).collect(), after }
}
