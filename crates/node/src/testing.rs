// SPDX-License-Identifier: Apache-2.0
//! A network namespace for a test. Needs root.

use crate::local::Host;
use datapath::netlink::{LinkChange, Netlink};
use nix::sched::{CloneFlags, unshare};

/// The kernel's view, except carriers, which settle only after a while.
pub(crate) fn without_carriers(mut host: Host) -> Host {
    host.links.iter_mut().for_each(|link| link.running = link.up);
    host
}

/// Runs a test on its own thread, in a temporary network namespace with the loopback device up.
pub(crate) fn in_namespace<F: Future>(test: impl FnOnce(Netlink) -> F + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let netlink = Netlink::open().unwrap();
                let lo = netlink.link("lo").await.unwrap().unwrap();
                netlink.change_link(lo.index, LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
                test(netlink).await;
            });
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
