// SPDX-License-Identifier: Apache-2.0
//! Attaching: what stays, what is replaced, what is cleaned up.

use std::net::UdpSocket;

use abi::maps::Metrics;
use datapath::Kernel;
use datapath::bpf::{Datapath, Direction, LinkPin, Options, Program, post_uninstall_cleanup};
use futures::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcMessage};

use crate::sandbox::{Cgroup, Sandbox, version};

/// The loopback device, which every network namespace has.
const LO: u32 = 1;

fn packets(datapath: &Datapath) -> u64 {
    let metrics = datapath.per_cpu::<Metrics>().unwrap();
    metrics.entries().unwrap().iter().map(|(_, value)| value.packets).sum()
}

/// How many packets the programs counted when one datagram is sent over the loopback device.
fn counted(datapath: &Datapath) -> u64 {
    let before = packets(datapath);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
    packets(datapath) - before
}

/// Whether an interface of the namespace has the discipline that filters hang below.
fn has_clsact() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let disciplines: Vec<TcMessage> = runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        handle.qdisc().get().execute().try_collect().await.unwrap()
    });
    let clsact = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact");
    disciplines.iter().any(|discipline| discipline.attributes.iter().any(clsact))
}

fn pin(name: &str, ifindex: u32) -> LinkPin {
    LinkPin { name: name.into(), ifindex: Some(ifindex) }
}

/// What the bpf file system remembers of attachments: links, and filters.
fn remembered(sandbox: &Sandbox) -> [Vec<String>; 2] {
    ["links", "filters"].map(|folder| {
        let entries = std::fs::read_dir(sandbox.pin(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    })
}

#[test]
fn programs_are_attached_by_links_from_6_6_on_and_else_by_filters() {
    for force_clsact in [false, true] {
        Sandbox::run(move |sandbox| {
            let datapath = sandbox.load_with(Options { force_clsact, ..Options::default() });
            datapath.attach_tc(Program::PodEgress, LO, Direction::Ingress, "x").unwrap();
            let (link, filter) = (vec!["x".to_owned()], vec!["x@1@ingress".to_owned()]);
            match datapath.attach_mode() {
                "tcx" => assert_eq!((remembered(sandbox), force_clsact), ([link, vec![]], false)),
                mode => {
                    assert!(force_clsact || version() < (6, 6), "a kernel with tcx");
                    assert_eq!((mode, remembered(sandbox)), ("tc", [vec![], filter]));
                }
            }
        });
    }
}

fn attaching_again_replaces_the_program_by(force_clsact: bool) {
    Sandbox::run(move |sandbox| {
        sandbox.loopback_up();
        let options = || Options { force_clsact, ..Options::default() };
        let first = sandbox.load_with(options());
        first.attach_tc(Program::PodEgress, LO, Direction::Ingress, "dev_lo.7_ingress").unwrap();
        assert_eq!(counted(&first), 1);
        drop(first);
        let second = sandbox.load_with(options());
        assert_eq!(counted(&second), 1, "the program stays when its agent goes");
        second.attach_tc(Program::PodEgress, LO, Direction::Ingress, "dev_lo.7_ingress").unwrap();
        assert_eq!(counted(&second), 1, "once, not twice");
        assert_eq!(second.links().unwrap(), [pin("dev_lo.7_ingress", LO)]);
        assert!(second.detach("dev_lo.7_ingress").unwrap());
        assert!(!second.detach("dev_lo.7_ingress").unwrap());
        assert_eq!(counted(&second), 0);
        assert!(second.links().unwrap().is_empty());
    });
}

#[test]
fn attaching_again_replaces_the_program() {
    attaching_again_replaces_the_program_by(false);
}

#[test]
fn attaching_by_clsact_again_replaces_the_program() {
    attaching_again_replaces_the_program_by(true);
}

fn a_program_attached_at_once_sees_each_packet_once_also_later(force_clsact: bool) {
    Sandbox::run(move |sandbox| {
        sandbox.loopback_up();
        let datapath = sandbox.load_with(Options { force_clsact, ..Options::default() });
        let (program, name) = (Program::PodEgress, "dev_lo_ingress");
        // Without tcx, the filter is not only the beginning.
        let tcx = datapath.attach_mode() == "tcx";
        for _again in 0..2 {
            let finished = datapath.attach_tc_at_once(program, LO, Direction::Ingress, name).unwrap();
            assert_eq!(finished, !tcx, "whether a link is to follow");
        }
        assert_eq!((counted(&datapath), datapath.links().unwrap()), (1, vec![pin(name, LO)]));
        datapath.attach_tc(program, LO, Direction::Ingress, name).unwrap();
        assert_eq!((counted(&datapath), datapath.links().unwrap()), (1, vec![pin(name, LO)]));
        assert_eq!(sandbox.pin("links").join(name).exists(), tcx);
        assert!(datapath.attach_tc_at_once(program, LO, Direction::Ingress, name).unwrap(), "there is a link to renew");
        assert_eq!(counted(&datapath), 1);
        assert!(datapath.detach(name).unwrap());
        assert_eq!((counted(&datapath), datapath.links().unwrap()), (0, vec![]));
    });
}

#[test]
fn a_program_attached_at_once_gets_its_link_later() {
    a_program_attached_at_once_sees_each_packet_once_also_later(false);
}

#[test]
fn a_program_attached_at_once_by_clsact_stays_a_filter() {
    a_program_attached_at_once_sees_each_packet_once_also_later(true);
}

fn a_name_follows_the_interface_it_is_attached_to(force_clsact: bool) {
    Sandbox::run(move |sandbox| {
        sandbox.loopback_up();
        let ip =
            |arguments: &str| std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap().success();
        let datapath = sandbox.load_with(Options { force_clsact, ..Options::default() });
        assert!(ip("link add lxc1 index 50 type veth"));
        datapath.attach_tc(Program::PodEgress, 50, Direction::Ingress, "pod_lxc1_egress").unwrap();
        assert_eq!(datapath.links().unwrap(), [pin("pod_lxc1_egress", 50)]);
        assert!(ip("link del lxc1"));
        assert_eq!(datapath.links().unwrap(), [pin("pod_lxc1_egress", 0)], "the interface has gone");
        assert!(ip("link add lxc1 index 51 type veth"));
        datapath.attach_tc(Program::PodEgress, 51, Direction::Ingress, "pod_lxc1_egress").unwrap();
        assert_eq!(datapath.links().unwrap(), [pin("pod_lxc1_egress", 51)]);
    });
}

#[test]
fn an_attachment_follows_the_interface_it_is_attached_to() {
    a_name_follows_the_interface_it_is_attached_to(false);
}

#[test]
fn a_filter_follows_the_interface_it_is_attached_to() {
    a_name_follows_the_interface_it_is_attached_to(true);
}

#[test]
fn attaching_to_no_interface_says_which_program_and_where() {
    Sandbox::run(|sandbox| {
        let datapath = sandbox.load();
        let error = datapath.attach_tc(Program::PodIngress, 99, Direction::Egress, "x").unwrap_err().to_string();
        assert_eq!(error, "cannot attach program pod_ingress to egress of interface 99");
    });
}

#[test]
fn socket_programs_attach_to_a_control_group_and_stay() {
    Sandbox::run(|sandbox| {
        let cgroup = Cgroup::new("datapath-attach");
        for _agent in 0..2 {
            let datapath = sandbox.load();
            for program in Program::sockets() {
                datapath.attach_cgroup(program, cgroup.path(), &format!("sock_{}", program.name())).unwrap();
            }
            assert_eq!(datapath.links().unwrap().len(), 10);
        }
        let datapath = sandbox.load();
        assert!(datapath.links().unwrap().iter().all(|link| link.ifindex.is_none()));
        let other = Cgroup::new("datapath-attach-other");
        datapath.attach_cgroup(Program::SockConnect4, other.path(), "sock_sock_connect4").unwrap();
        assert_eq!(datapath.links().unwrap().len(), 10, "the link moved to the other control group");
        assert!(datapath.attach_cgroup(Program::PodEgress, cgroup.path(), "x").is_err());
    });
}

#[test]
fn after_the_cleanup_nothing_is_left() {
    Sandbox::run(|sandbox| {
        sandbox.loopback_up();
        let clsact = sandbox.load_with(Options { force_clsact: true, ..Options::default() });
        clsact.attach_tc(Program::PodEgress, LO, Direction::Ingress, "a").unwrap();
        let other = sandbox.load();
        other.attach_tc(Program::PodIngress, LO, Direction::Egress, "b").unwrap();
        assert_eq!((counted(&other), has_clsact()), (2, true));
        post_uninstall_cleanup(&sandbox.bpffs).unwrap();
        assert_eq!((counted(&other), has_clsact()), (0, false));
        assert!(!sandbox.bpffs.join("cilium").exists());
        post_uninstall_cleanup(&sandbox.bpffs).unwrap();
    });
}

#[test]
fn the_discipline_goes_with_the_last_filter_below_it() {
    Sandbox::run(|sandbox| {
        sandbox.loopback_up();
        let datapath = sandbox.load_with(Options { force_clsact: true, ..Options::default() });
        datapath.attach_tc(Program::PodEgress, LO, Direction::Ingress, "a").unwrap();
        datapath.attach_tc(Program::PodIngress, LO, Direction::Egress, "b").unwrap();
        for (name, count, stays) in [("a", 1, true), ("b", 0, false)] {
            datapath.detach(name).unwrap();
            assert_eq!((counted(&datapath), has_clsact()), (count, stays), "after {name}");
        }
        datapath.attach_tc(Program::PodEgress, LO, Direction::Ingress, "a").unwrap();
        assert_eq!((counted(&datapath), has_clsact()), (1, true));
    });
}
