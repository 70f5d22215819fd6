// SPDX-License-Identifier: Apache-2.0
//! The plugin, called as a container runtime calls it, in network namespaces of the test. Needs root.

use super::*;
use crate::reference::AttachmentId;
use crate::testing::agent::Setup;
use crate::testing::node::{Node, Sandbox, Serving, block_on, config, on_a_node, routers};
use datapath::netlink::{MAIN_TABLE, Netlink, Scope};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

fn code(answer: Result<Value, Value>) -> u64 {
    answer.unwrap_err()["code"].as_u64().unwrap()
}

fn without_agent(command: &str, config: &str) -> Result<Value, Value> {
    let environment = Environment {
        command: command.into(),
        container_id: "abc".into(),
        interface: "eth0".into(),
        socket: "/nonexistent/cilium.sock".into(),
        ..Environment::default()
    };
    let parse = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    run(&environment, config.as_bytes()).map(|t| parse(&t)).map_err(|t| parse(&t))
}

#[test]
fn the_version_verb_lists_all_versions() {
    let answer = without_agent("VERSION", r#"{"cniVersion":"1.0.0"}"#).unwrap();
    assert_eq!(answer["cniVersion"], "1.0.0");
    assert_eq!(answer["supportedVersions"].as_array().unwrap().len(), 7);
    assert_eq!(without_agent("VERSION", "").unwrap()["cniVersion"], "1.1.0");
}

#[test]
fn bad_input_is_one_error_with_a_code_in_the_callers_version() {
    let code = |command: &str, config: &str| code(without_agent(command, config));
    assert_eq!(code("ADD", "{"), 6);
    assert_eq!(code("ADD", r#"{"cniVersion":"7.0.0"}"#), 1);
    assert_eq!(code("PING", r#"{"cniVersion":"1.0.0"}"#), 4);
    assert_eq!(code("CHECK", r#"{"cniVersion":"0.3.1"}"#), 1);
    assert_eq!(code("GC", r#"{"cniVersion":"1.0.0"}"#), 1);
    let error = without_agent("ADD", r#"{"cniVersion":"0.4.0","name":"n"}"#).unwrap_err();
    assert_eq!((error["code"].as_u64().unwrap(), error["cniVersion"].as_str().unwrap()), (4, "0.4.0"));
    assert!(error["msg"].as_str().unwrap().contains("CNI_NETNS"));
}

#[test]
fn the_host_interface_follows_from_the_attachment() {
    let id = |container: &str| AttachmentId { container_id: container.into(), interface: "eth0".into() };
    assert_eq!(host_interface(&id("abc")), host_interface(&id("abc")));
    assert_ne!(host_interface(&id("abc")), host_interface(&id("abd")));
    assert_eq!(host_interface(&id("abc")).len(), 15);
}

fn add(node: &Node, serving: &mut Serving, name: &str, sandbox: &Sandbox) -> Value {
    serving.agent.know("default", name);
    node.call("ADD", name, &sandbox.path(), &config()).unwrap()
}

fn host_name(name: &str) -> String {
    host_interface(&AttachmentId { container_id: name.into(), interface: "eth0".into() })
}

/// A listener in one pod and a stream from another, and one byte each way.
fn talk(one: &Sandbox, other: &Sandbox, ip: IpAddr) {
    let listener = other.run(|| TcpListener::bind(SocketAddr::new(ip, 0)).unwrap());
    let to = listener.local_addr().unwrap();
    let client = one.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap());
    let (server, _) = listener.accept().unwrap();
    for (mut from, mut to) in [(&client, &server), (&server, &client)] {
        from.write_all(b"x").unwrap();
        to.read_exact(&mut [0]).unwrap();
    }
}

/// A listener on the host and a stream from the pod, and one byte each way.
fn talks(sandbox: &Sandbox, gateway: IpAddr) {
    let listener = TcpListener::bind(SocketAddr::new(gateway, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let pod = sandbox.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap());
    let (mut host, _) = listener.accept().unwrap();
    for (mut from, mut to) in [(&pod, &host), (&host.try_clone().unwrap(), &pod)] {
        from.write_all(b"x").unwrap();
        to.read_exact(&mut [0]).unwrap();
    }
    host.flush().unwrap();
}

#[test]
fn add_makes_an_interface_over_which_the_pod_and_its_host_talk() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let sandbox = Sandbox::new();
        let answer = add(&node, &mut serving, "a", &sandbox);
        assert_eq!(answer["ips"][0]["address"], "fd00::1/128");
        assert_eq!(answer["ips"][1]["address"], "10.0.0.1/32");
        assert_eq!(answer["ips"][1]["gateway"], "10.0.255.1");
        assert_eq!(answer["interfaces"][0]["name"], host_name("a"));
        assert_eq!(answer["interfaces"][1]["sandbox"], sandbox.path());
        assert_eq!(answer["interfaces"][1]["mtu"], 1500);
        for gateway in routers() {
            talks(&sandbox, gateway);
        }
        assert_eq!(node.hooks.attached().len(), 2);
        let cookies: Vec<_> = serving.agent.endpoints.snapshot().iter().map(|pod| pod.netns_cookie).collect();
        assert_eq!(cookies, [sandbox.run(datapath::netns::cookie)]);
        assert!(cookies[0] != 0 && cookies[0] != datapath::netns::cookie());
        let checked = json!({"cniVersion": "1.1.0", "name": "cilium", "prevResult": answer});
        node.call("CHECK", "a", &sandbox.path(), &checked).unwrap();
    });
}

#[test]
fn two_pods_of_a_node_talk_through_the_programs() {
    on_a_node(|node| {
        let mut serving = node.serve_programs(Setup::new(node.runtime()));
        let (one, other) = (Sandbox::new(), Sandbox::new());
        add(&node, &mut serving, "one", &one);
        let answer = add(&node, &mut serving, "other", &other);
        let talk_all = || {
            for ip in answer["ips"].as_array().unwrap() {
                let ip = ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
                talk(&one, &other, ip);
            }
            for gateway in routers() {
                talks(&one, gateway);
            }
        };
        let count = |kind: &str| std::fs::read_dir(format!("/sys/fs/bpf/cilium/v1/{kind}")).unwrap().count();
        talk_all();
        node.until(|| (count("links"), count("filters")) == (4, 0));
        talk_all();
        node.call("DEL", "one", &one.path(), &config()).unwrap();
        assert_eq!((count("links"), count("filters")), (2, 0));
        node.call("DEL", "other", &other.path(), &config()).unwrap();
        assert_eq!((count("links"), count("filters")), (0, 0));
    });
}

#[test]
fn pods_that_come_and_go_at_once_do_not_hinder_each_other() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let pods: Vec<_> = (0..16).map(|n| (format!("p{n}"), Sandbox::new())).collect();
        for (name, _) in &pods {
            serving.agent.know("default", name);
        }
        let all = |command: &str| -> Vec<Value> {
            std::thread::scope(|scope| {
                let call = |(name, sandbox): &(String, Sandbox)| node.call(command, name, &sandbox.path(), &config());
                let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(move || call(pod))).collect();
                calls.into_iter().map(|call| call.join().unwrap().unwrap()).collect()
            })
        };
        let addresses: BTreeSet<_> = all("ADD").iter().map(|answer| answer["ips"].to_string()).collect();
        assert_eq!(addresses.len(), pods.len());
        assert_eq!((node.interfaces().len(), node.hooks.attached().len()), (pods.len(), 2 * pods.len()));
        for gateway in routers() {
            pods.iter().for_each(|(_, sandbox)| talks(sandbox, gateway));
        }
        all("DEL");
        assert_eq!((node.interfaces().len(), node.hooks.attached().len()), (0, 0));
        assert!(serving.agent.pool.taken.lock().is_empty());
    });
}

#[test]
fn the_pods_side_is_as_the_contract_says() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let sandbox = Sandbox::new();
        let answer = add(&node, &mut serving, "a", &sandbox);
        let (link, routes, neighbours) = sandbox.ask(|netlink| async move {
            let link = netlink.link("eth0").await.unwrap().unwrap();
            (link, netlink.routes(MAIN_TABLE).await.unwrap(), netlink.neighbours().await.unwrap())
        });
        assert_eq!((link.alt_names, link.mtu, link.up), (vec!["cilium_cni:eth0".to_owned()], 1500, true));
        assert_eq!(answer["interfaces"][1]["mac"], link.mac.unwrap().to_string());
        for gateway in routers() {
            let all = |route: &&datapath::netlink::Route| {
                route.destination.prefix_len() == 0 && route.gateway == Some(gateway)
            };
            let default = routes.iter().find(all).unwrap();
            assert_eq!(default.mtu, Some(1450), "room for the tunnel's header");
            let direct = routes.iter().find(|r| r.destination == gateway.into()).unwrap();
            assert_eq!((direct.gateway, direct.ifindex), (None, Some(link.index)));
            assert!(gateway.is_ipv6() || direct.scope == Scope::Link);
            let neighbour = neighbours.iter().find(|n| n.ip == gateway).unwrap();
            assert_eq!(answer["interfaces"][0]["mac"], neighbour.mac.to_string());
        }
    });
}

#[test]
fn the_host_knows_the_way_to_the_pod() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let sandbox = Sandbox::new();
        let answer = add(&node, &mut serving, "a", &sandbox);
        let (link, routes, neighbours) = block_on(async {
            let netlink = Netlink::open().unwrap();
            let link = netlink.link(&host_name("a")).await.unwrap().unwrap();
            (link, netlink.routes(MAIN_TABLE).await.unwrap(), netlink.neighbours().await.unwrap())
        });
        assert!(link.up);
        for (ip, router) in [("fd00::1", routers()[0]), ("10.0.0.1", routers()[1])] {
            let ip: IpAddr = ip.parse().unwrap();
            let route = routes.iter().find(|r| r.destination == ip.into()).unwrap();
            assert_eq!((route.ifindex, route.source), (Some(link.index), Some(router)));
            let neighbour = neighbours.iter().find(|n| n.ip == ip).unwrap();
            assert_eq!(answer["interfaces"][1]["mac"], neighbour.mac.to_string());
        }
        let rp_filter = datapath::sysctl::read(&format!("net/ipv4/conf/{}/rp_filter", host_name("a"))).unwrap();
        assert_eq!(rp_filter, "0");
    });
}

#[test]
fn del_leaves_nothing_and_may_be_called_again() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let sandbox = Sandbox::new();
        add(&node, &mut serving, "a", &sandbox);
        for netns in [sandbox.path(), String::new(), "/nonexistent".into()] {
            assert_eq!(node.call("DEL", "a", &netns, &config()), Ok(Value::Null));
            assert!(node.interfaces().is_empty());
        }
        assert!(serving.agent.endpoints.snapshot().is_empty());
        assert!(serving.agent.pool.taken.lock().is_empty());
        assert!(node.hooks.attached().is_empty());
        assert!(sandbox.ask(|netlink| async move { netlink.link("eth0").await.unwrap() }).is_none());
        add(&node, &mut serving, "a", &sandbox);
    });
}

#[test]
fn an_add_that_fails_leaves_nothing() {
    on_a_node(|node| {
        let serving = node.serve(Setup::new(node.runtime()));
        let sandbox = Sandbox::new();
        let error = node.call("ADD", "unknown", &sandbox.path(), &config()).unwrap_err();
        assert_eq!(error["code"], 11);
        assert!(error["details"].as_str().unwrap().contains("default/unknown"), "{error}");
        assert!(node.interfaces().is_empty());
        assert!(serving.agent.pool.taken.lock().is_empty());
        assert!(serving.agent.endpoints.snapshot().is_empty());
    });
}

#[test]
fn a_second_add_is_refused_and_does_not_harm_the_first() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let sandbox = Sandbox::new();
        add(&node, &mut serving, "a", &sandbox);
        let error = node.call("ADD", "a", &sandbox.path(), &config()).unwrap_err();
        assert_eq!(error["code"], 5);
        assert_eq!(serving.agent.endpoints.snapshot().len(), 1);
        assert_eq!(serving.agent.pool.taken.lock().len(), 2, "what it took, it gave back");
        for gateway in routers() {
            talks(&sandbox, gateway);
        }
    });
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    on_a_node(|node| {
        let sandbox = Sandbox::new();
        let away = node.call("ADD", "a", &sandbox.path(), &config()).unwrap_err();
        assert_eq!(away["code"], 11);
        assert!(away["msg"].as_str().unwrap().contains("not running"), "{away}");
        assert_eq!(code(node.call("STATUS", "", "", &config())), 50);
        assert_eq!(code(node.call("CHECK", "a", &sandbox.path(), &config())), 11);
        let mut setup = Setup::new(node.runtime());
        setup.pool.size = 0;
        let mut serving = node.serve(setup);
        serving.agent.know("default", "a");
        node.call("STATUS", "", "", &config()).unwrap();
        assert_eq!(code(node.call("ADD", "a", "/nonexistent", &config())), 3);
        let exhausted = node.call("ADD", "a", &sandbox.path(), &config()).unwrap_err();
        assert_eq!(exhausted["code"], 11);
        assert!(exhausted["details"].as_str().unwrap().contains("no address is free: pool 10.0.0.0/16"), "{exhausted}");
        assert_eq!(code(node.call("CHECK", "a", &sandbox.path(), &config())), 100);
        assert!(node.interfaces().is_empty());
    });
}

#[test]
fn the_nodes_own_namespace_is_not_a_pods() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        serving.agent.know("default", "a");
        let routes = || block_on(async { Netlink::open().unwrap().routes(MAIN_TABLE).await.unwrap() });
        let before = routes();
        let refused = node.call("ADD", "a", "/proc/thread-self/ns/net", &config()).unwrap_err();
        assert_eq!(refused["code"], 4, "{refused}");
        assert_eq!(routes(), before);
        assert!(serving.agent.pool.taken.lock().is_empty());
    });
}

#[test]
fn check_sees_what_somebody_took_away() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let sandbox = Sandbox::new();
        let answer = add(&node, &mut serving, "a", &sandbox);
        sandbox.ask(|netlink| async move {
            let address = netlink.addresses().await.unwrap().into_iter().find(|a| a.net.addr().is_ipv4()).unwrap();
            netlink.delete_address(address).await.unwrap();
        });
        let checked = json!({"cniVersion": "1.1.0", "name": "cilium", "prevResult": answer});
        let error = node.call("CHECK", "a", &sandbox.path(), &checked).unwrap_err();
        assert_eq!(error["code"], 102);
        assert!(error["msg"].as_str().unwrap().contains("10.0.0.1"), "{error}");
    });
}

#[test]
fn a_pod_deleted_while_the_agent_is_away_leaves_nothing_behind() {
    on_a_node(|node| {
        let setup = Setup::new(node.runtime());
        let (kernel, pool) = (setup.kernel.clone(), setup.pool.clone());
        let mut serving = node.serve(setup);
        let (gone, kept) = (Sandbox::new(), Sandbox::new());
        add(&node, &mut serving, "gone", &gone);
        add(&node, &mut serving, "kept", &kept);
        drop(serving);
        pool.taken.lock().clear();
        node.call("DEL", "gone", &gone.path(), &config()).unwrap();
        assert_eq!(node.interfaces(), [host_name("kept")]);
        let serving = node.serve(Setup { kernel: kernel.clone(), ..Setup::new(node.runtime()) });
        // The API serves when the endpoints are restored: the pod's address is known to be in use.
        node.call("STATUS", "", "", &config()).unwrap();
        let settled = || {
            let entries = kernel.map::<abi::maps::Endpoints>().unwrap().keys().unwrap().len();
            (entries, node.hooks.attached().len()) == (1, 2)
        };
        node.until(settled);
        let left: Vec<_> = serving.agent.endpoints.snapshot().iter().map(|e| e.container_id.clone()).collect();
        assert_eq!(left, ["kept"]);
        assert_eq!(serving.agent.pool.taken.lock().values().collect::<Vec<_>>(), ["default/kept", "default/kept"]);
        for gateway in routers() {
            talks(&kept, gateway);
        }
    });
}

#[test]
fn a_deletion_on_a_node_where_no_agent_has_been_leaves_no_trace() {
    on_a_node(|node| {
        let folder = node.runtime().join("deleteQueue");
        node.call("DEL", "a", "", &config()).unwrap();
        assert!(!folder.exists());
        std::fs::create_dir(&folder).unwrap();
        node.call("DEL", "a", "", &config()).unwrap();
        assert_eq!(block_on(crate::queue::Queue::new(&folder).pending()).unwrap(), ["a"]);
    });
}

/// The request that a plugin sends, up to its end.
fn hear(stream: &mut std::os::unix::net::UnixStream) -> String {
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"\"}") && stream.read_exact(&mut byte).is_ok() {
        heard.extend(byte);
    }
    String::from_utf8(heard).unwrap()
}

#[test]
fn a_deletion_is_noted_before_the_agent_is_asked_again_and_nothing_is_locked_meanwhile() {
    on_a_node(|node| {
        let listener = std::os::unix::net::UnixListener::bind(node.runtime().join("cilium.sock")).unwrap();
        let folder = node.runtime().join("deleteQueue");
        let queue = crate::queue::Queue::new(&folder);
        let (of_agent, lockfile) = (queue.clone(), folder.join("lockfile"));
        // An agent that hangs up on the first request, and answers the second.
        let agent = std::thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            assert!(hear(&mut first).starts_with("DELETE /v1/endpoint "));
            assert!(block_on(of_agent.pending()).unwrap().is_empty());
            drop(first);
            let (mut second, _) = listener.accept().unwrap();
            assert!(hear(&mut second).contains(r#"{"container-id":"a"}"#));
            assert_eq!(block_on(of_agent.pending()).unwrap(), ["a"]);
            let lock = std::fs::OpenOptions::new().write(true).open(lockfile).unwrap();
            let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock);
            assert!(lock.is_ok(), "it is locked while the agent is asked");
            drop(lock);
            second.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        assert_eq!(node.call("DEL", "a", "", &config()), Ok(Value::Null));
        agent.join().unwrap();
        assert!(block_on(queue.pending()).unwrap().is_empty(), "it is done");
    });
}

#[test]
fn gc_removes_what_the_runtime_does_not_know() {
    on_a_node(|node| {
        let mut serving = node.serve(Setup::new(node.runtime()));
        let (known, forgotten) = (Sandbox::new(), Sandbox::new());
        add(&node, &mut serving, "known", &known);
        add(&node, &mut serving, "forgotten", &forgotten);
        assert_eq!(code(node.call("GC", "", "", &config())), 7);
        let mut config = config();
        config["cni.dev/valid-attachments"] = json!([{"containerID": "known", "ifname": "eth0"}]);
        node.call("GC", "", "", &config).unwrap();
        assert_eq!(node.interfaces(), [host_name("known")]);
        assert_eq!(serving.agent.endpoints.snapshot().len(), 1);
    });
}

#[test]
fn the_loopback_plugin_lets_the_device_up() {
    on_a_node(|node| {
        let sandbox = Sandbox::new();
        let environment =
            |command: &str| Environment { command: command.into(), netns: sandbox.path(), ..Environment::default() };
        let config = br#"{"cniVersion":"1.0.0","name":"lo","type":"loopback"}"#;
        let answer: Value = serde_json::from_str(&crate::loopback::run(&environment("ADD"), config).unwrap()).unwrap();
        assert_eq!(answer["interfaces"][0]["name"], "lo");
        assert!(sandbox.ask(|netlink| async move { netlink.link("lo").await.unwrap().unwrap().up }));
        assert_eq!(crate::loopback::run(&environment("DEL"), config).unwrap(), "");
        let gone = Environment { netns: "/nonexistent".into(), ..environment("ADD") };
        assert!(crate::loopback::run(&gone, config).unwrap_err().contains("/nonexistent"));
        assert!(crate::loopback::run(&Environment { command: "DEL".into(), ..gone }, config).is_ok());
        drop(node);
    });
}
