// SPDX-License-Identifier: Apache-2.0
//! Attaching before the stack: what stays, what is replaced, what is cleaned up.

use std::process::Command;

use datapath::bpf::{LinkPin, Program, XdpMode, post_uninstall_cleanup};

use crate::sandbox::{Sandbox, chain};

const VETH: u32 = 50;

/// What the kernel says of XDP at the veth device.
fn shown() -> String {
    let output = Command::new("ip").args(["-d", "link", "show", "dev", "eth9"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn on_veth(test: impl FnOnce(&Sandbox) + Send + 'static) {
    Sandbox::run(move |sandbox| {
        let ip = |arguments: &str| Command::new("ip").args(arguments.split(' ')).status().unwrap().success();
        assert!(ip(&format!("link add eth9 index {VETH} type veth peer name far")));
        assert!(ip("link set eth9 up") && ip("link set far up"));
        test(sandbox);
    });
}

#[test]
fn a_program_before_the_stack_stays_is_replaced_and_goes() {
    for mode in [XdpMode::Generic, XdpMode::Native] {
        on_veth(move |sandbox| {
            let mut ids = Vec::new();
            for _agent in 0..2 {
                let datapath = sandbox.load();
                datapath.attach_xdp(Program::NetdevXdp, VETH, mode, "dev_eth9_xdp").unwrap();
                let pin = LinkPin { name: "dev_eth9_xdp".into(), ifindex: Some(VETH) };
                assert_eq!(datapath.links().unwrap(), [pin]);
                let shown = shown();
                let id = shown.split("prog/xdp id ").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned());
                assert_eq!(shown.contains("xdpgeneric"), mode == XdpMode::Generic, "{shown}");
                ids.push(id);
            }
            assert!(ids[0].is_some() && ids[0] != ids[1], "the program was replaced: {ids:?}");
            let datapath = sandbox.load();
            assert!(datapath.detach("dev_eth9_xdp").unwrap());
            assert!(!shown().contains("prog/xdp"), "{}", shown());
        });
    }
}

#[test]
fn the_cleanup_takes_programs_before_the_stack_too() {
    on_veth(|sandbox| {
        let datapath = sandbox.load();
        datapath.attach_xdp(Program::NetdevXdp, VETH, XdpMode::Generic, "dev_eth9_xdpgeneric").unwrap();
        assert!(shown().contains("prog/xdp"));
        post_uninstall_cleanup(&sandbox.bpffs).unwrap();
        assert!(!shown().contains("prog/xdp"));
    });
}

#[test]
fn an_interface_has_programs_in_one_place_only() {
    on_veth(|sandbox| {
        let datapath = sandbox.load();
        datapath.attach_xdp(Program::NetdevXdp, VETH, XdpMode::Generic, "generic").unwrap();
        let error = datapath.attach_xdp(Program::NetdevXdp, VETH, XdpMode::Native, "native").unwrap_err();
        assert!(chain(&error).starts_with("cannot attach program netdev_xdp to interface 50, native XDP: "), "{error}");
        assert!(datapath.attach_xdp(Program::PodEgress, VETH, XdpMode::Generic, "x").is_err());
    });
}
