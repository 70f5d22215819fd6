// SPDX-License-Identifier: Apache-2.0
//! What holds of a lab before anything is installed on it. Needs root and the programs that `make kube` builds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use lab::own::Own;
use lab::probe::eventually;

const LAB: &str = env!("CARGO_BIN_EXE_cilium-lab");

fn up(name: &'static str, options: &[&str]) -> Own {
    Own::up(LAB, name, options).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn nodes_register_with_both_families_and_wait_for_a_network() {
    let own = up("plain", &[]);
    own.cluster
        .test("plain", |cluster| {
            let nodes = cluster.get(&["nodes"])?;
            let items = nodes["items"].as_array().unwrap();
            assert_eq!(items.len(), 2);
            for node in items {
                assert_eq!(node["spec"]["podCIDRs"].as_array().unwrap().len(), 2, "{node}");
                let addresses = node["status"]["addresses"].as_array().unwrap();
                let internal: Vec<_> = addresses.iter().filter(|a| a["type"] == "InternalIP").collect();
                assert_eq!(internal.len(), 2, "{addresses:?}");
                let ready = node["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready");
                assert_eq!(ready.unwrap()["status"], "False", "there is no network yet");
            }
            let dns = cluster.get(&["service", "kube-dns", "--namespace", "kube-system"])?;
            assert_eq!(dns["spec"]["clusterIPs"], serde_json::json!(["10.96.0.10", "fd00:10:96::a"]));
            let status: serde_json::Value =
                serde_json::from_str(&stdout(&own.lab(&["status", "-o", "json"]).unwrap()))?;
            assert_eq!(
                (&status["k8sServiceHost"], &status["k8sServicePort"]),
                (&"192.168.77.1".into(), &6443.into()),
                "what a chart is told of the API server"
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_command_on_a_node_runs_in_its_namespaces_and_its_exit_status_passes_through() {
    let own = up("command", &["--nodes", "1", "--ipv4"]);
    assert_eq!(own.lab(&["node", "node1", "--", "true"]).unwrap().status.code(), Some(0));
    assert_eq!(own.lab(&["node", "node1", "--", "sh", "-c", "exit 42"]).unwrap().status.code(), Some(42));
    assert_eq!(own.lab(&["node", "node1", "--", "no-such-program"]).unwrap().status.code(), Some(127));
    assert_eq!(stdout(&own.lab(&["node", "node1", "--", "hostname"]).unwrap()), "node1");
    let addresses =
        stdout(&own.lab(&["node", "node1", "--", "ip", "-brief", "-4", "address", "show", "eth0"]).unwrap());
    assert!(addresses.contains("192.168.77.11/24"), "{addresses}");
    let groups = stdout(&own.lab(&["node", "node1", "--", "cat", "/proc/self/cgroup"]).unwrap());
    assert!(groups.lines().any(|line| line.starts_with("0::/") && !line.contains("..")), "{groups}");
    let types = "stat -f -c %T /run/cilium/cgroupv2 /sys/fs/bpf /run";
    assert_eq!(stdout(&own.lab(&["node", "node1", "--", "sh", "-c", types]).unwrap()), "cgroup2fs\nbpf_fs\ntmpfs");

    let unknown = own.lab(&["node", "node9", "--", "true"]).unwrap();
    assert!(!unknown.status.success());
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("has no machine 'node9', but node1, control"), "{said}");
}

#[test]
fn a_rebooted_node_comes_back_by_itself_with_its_pods() {
    let own = up("reboot", &["--nodes", "1", "--ipv4", "--cni", "bridge"]);
    own.cluster
        .test("reboot", |cluster| {
            cluster.nodes_ready(Duration::from_secs(60))?;
            cluster.kubectl(&[
                "run",
                "client",
                "--image=registry.k8s.io/e2e-test-images/agnhost:2.63.0",
                "--image-pull-policy=IfNotPresent",
            ])?;
            cluster.pods_ready("default", "run=client", Duration::from_secs(60))?;
            let mark = cluster.node("node1", &["touch", "/run/before"])?;
            assert!(mark.status.success());
            cluster.fault("reboot", "node1")?;
            let gone = cluster.node("node1", &["test", "-e", "/run/before"])?;
            assert_eq!(gone.status.code(), Some(1), "/run outlived the reboot");
            eventually(Duration::from_secs(90), "the pod started again", || {
                let pod = cluster.get(&["pod", "client"])?;
                let status = &pod["status"]["containerStatuses"][0];
                anyhow::ensure!(status["restartCount"] == 1 && status["ready"] == true, "{status}");
                Ok(())
            })?;
            cluster.exec("default", "client", &["sh", "-c", "curl --version"])?;
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_stopped_api_server_stays_away_until_it_is_restored() {
    let own = up("stopped", &["--nodes", "1", "--ipv6"]);
    own.cluster.fault("stop", "apiserver").unwrap();
    assert!(own.cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err());
    assert_eq!(own.lab(&["status"]).unwrap().status.code(), Some(1));
    own.cluster.fault("restore", "apiserver").unwrap();
    eventually(Duration::from_secs(60), "the API server", || own.cluster.kubectl(&["get", "nodes"])).unwrap();
}

#[test]
fn two_labs_live_side_by_side_and_a_lab_that_is_down_leaves_nothing() {
    let before = links();
    let first = up("first", &["--nodes", "1", "--ipv4"]);
    let second = up("second", &["--nodes", "1", "--ipv4"]);
    assert_eq!(links(), before, "a lab changed the machine's own links");
    let folder = first.cluster.kubeconfig().parent().unwrap().to_owned();
    assert!(first.lab(&["down"]).unwrap().status.success());

    assert!(!folder.exists(), "{} is still there", folder.display());
    assert_eq!(processes_that_mention(&folder), Vec::<String>::new());
    assert!(second.cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok(), "the other lab was harmed");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/first/"), "{mounts}");
    assert!(first.lab(&["down"]).unwrap().status.success(), "down is to succeed when there is nothing");
}

fn links() -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir("/sys/class/net").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn processes_that_mention(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
}
