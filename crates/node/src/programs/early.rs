// SPDX-License-Identifier: Apache-2.0
//! Where on a device Services are served before the kernel's stack (XDP).

use super::Programs;
use crate::local::{Facts, Host};
use datapath::Result;
use datapath::bpf::{Program, XdpMode};
use model::Device;
use std::collections::{BTreeMap, BTreeSet};
use tracing::warn;

/// Virtual devices whose driver has a place for programs, but sends what these return only if the other end has one too.
const ONE_SIDED: &str = "veth";
/// Devices that share another one's frames by a tag.
const VLAN: &str = "vlan";

impl Programs {
    /// Serves before the stack on the native devices, each where it can. Returns the attachments. A device that cannot is served at tc.
    pub(super) async fn accelerate(&mut self, facts: &Facts, host: &Host) -> Result<BTreeSet<String>> {
        let (mut pins, mut by_device) = (BTreeSet::new(), BTreeMap::new());
        for device in &facts.devices {
            let is_attached = |pin: &str| self.attached.contains_key(pin);
            let (attempts, mut obstacle) = attempts(device, host, self.exposure.before_stack, is_attached);
            for (pin, mode) in attempts {
                match self.attach_early(device, &pin, mode).await? {
                    Some(error) => obstacle = Some(error),
                    None => {
                        pins.insert(pin);
                        by_device.insert(device.name.clone(), mode);
                        obstacle = None;
                        break;
                    }
                }
            }
            self.tell(device, obstacle);
        }
        self.exposure.accelerated.send_replace(by_device);
        Ok(pins)
    }

    /// Attaches the program there, and nowhere else on the device. What keeps the device from that is returned.
    async fn attach_early(&mut self, device: &Device, pin: &str, mode: XdpMode) -> Result<Option<String>> {
        let (index, other) = (device.index, self::pin(&device.name, mode.other()));
        if self.attached.get(pin) == Some(&index) {
            return Ok(None);
        }
        if self.attached.contains_key(&other) {
            self.remove(&other).await?;
        }
        let attach = self.change(pin, move |hooks, pin| hooks.attach_xdp(Program::NetdevXdp, index, mode, pin));
        if let Err(error) = attach.await {
            return Ok(Some(statedb::with_causes(&error)));
        }
        self.attached.insert(pin.to_owned(), index);
        Ok(None)
    }

    /// Warns once of a device that is not served before the stack though that is wanted.
    fn tell(&mut self, device: &Device, obstacle: Option<String>) {
        match obstacle {
            Some(why) if self.slow.insert(device.name.clone()) => {
                warn!(device = device.name, "Services are not served before the stack: {why}");
            }
            Some(_) => {}
            None => drop(self.slow.remove(&device.name)),
        }
    }
}

/// Name of the pin of an attachment; it tells the place.
fn pin(device: &str, mode: XdpMode) -> String {
    format!("dev_{device}{}", ending(mode))
}

/// Whether it is the name of such a pin.
pub(super) fn is_pin(pin: &str) -> bool {
    [XdpMode::Native, XdpMode::Generic].iter().any(|mode| pin.ends_with(ending(*mode)))
}

const fn ending(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "_xdp",
        XdpMode::Generic => "_xdpgeneric",
    }
}

/// The attachments to try on a device, in order, and why there are none or not all. What `is_attached` stays where it is.
fn attempts(
    device: &Device,
    host: &Host,
    modes: &[XdpMode],
    is_attached: impl Fn(&str) -> bool,
) -> (Vec<(String, XdpMode)>, Option<String>) {
    if modes.is_empty() {
        return (Vec::new(), None);
    }
    if let Some(vlan) =
        host.links.iter().find(|link| link.kind.as_deref() == Some(VLAN) && link.peer == Some(device.index))
    {
        // A card may take tags off: programs would serve frames of another network.
        return (Vec::new(), Some(format!("it carries {}, whose frames look like its own there", vlan.name)));
    }
    let one_sided = host.links.iter().any(|link| link.index == device.index && link.kind.as_deref() == Some(ONE_SIDED));
    let possible = modes.iter().copied().filter(|mode| !(one_sided && *mode == XdpMode::Native));
    let mut found: Vec<_> = possible.map(|mode| (pin(&device.name, mode), mode)).collect();
    found.sort_by_key(|(pin, _)| !is_attached(pin));
    let obstacle = found.is_empty().then(|| format!("the driver of {ONE_SIDED} devices cannot"));
    (found, obstacle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::{config, facts, host, kube, link};
    use crate::programs::Exposure;
    use datapath::netlink::Link;
    use datapath::{Epochs, Kernel, fake};
    use model::DeviceMode;
    use std::sync::Arc;
    use tokio::sync::watch;

    const ALL: [XdpMode; 2] = [XdpMode::Native, XdpMode::Generic];

    fn device() -> Device {
        Device {
            name: "eth0".into(),
            index: 2,
            mtu: 1500,
            mode: DeviceMode::L3,
            running: true,
            ipv4: None,
            ipv6: None,
            selected: true,
        }
    }

    fn modes(host: &Host, wanted: &[XdpMode], attached: &str) -> (Vec<XdpMode>, bool) {
        let (found, obstacle) = attempts(&device(), host, wanted, |pin| pin == attached);
        (found.into_iter().map(|(_, mode)| mode).collect(), obstacle.is_some())
    }

    #[test]
    fn the_driver_comes_first_unless_something_is_attached_elsewhere() {
        let host = host();
        assert_eq!(modes(&host, &[], ""), (vec![], false));
        assert_eq!(modes(&host, &ALL, ""), (ALL.to_vec(), false));
        assert_eq!(modes(&host, &ALL, "dev_eth0_xdpgeneric"), (vec![XdpMode::Generic, XdpMode::Native], false));
        assert_eq!(modes(&host, &ALL[..1], "dev_eth0_xdpgeneric"), (vec![XdpMode::Native], false));
    }

    #[test]
    fn a_veth_device_is_not_served_in_its_driver() {
        let mut host = host();
        host.links.retain(|link| link.index != 2);
        host.links.push(Link { kind: Some("veth".into()), ..link(2, "eth0") });
        assert_eq!(modes(&host, &ALL, ""), (vec![XdpMode::Generic], false));
        assert_eq!(modes(&host, &ALL[..1], ""), (vec![], true));
    }

    #[test]
    fn a_device_that_carries_a_vlan_is_not_served_before_the_stack() {
        let mut host = host();
        host.links.push(Link { kind: Some("vlan".into()), peer: Some(2), ..link(20, "eth0.7") });
        assert_eq!(modes(&host, &ALL, ""), (vec![], true));
        host.links.push(Link { kind: Some("vlan".into()), peer: Some(3), ..link(21, "eth1.7") });
        host.links.retain(|link| link.index != 20);
        assert_eq!(modes(&host, &ALL, "").0, ALL);
    }

    async fn attached(hooks: &fake::Hooks, before_stack: &'static [XdpMode]) -> (Vec<String>, Vec<XdpMode>) {
        let maps: Arc<dyn Kernel> = Arc::new(fake::Kernel::new());
        let (accelerated, told) = watch::channel(BTreeMap::new());
        let exposure = Exposure { exposed: false, before_stack, accelerated };
        let epochs = Epochs::open(&maps).unwrap();
        let mut programs = Programs::new(&maps, Arc::new(hooks.clone()), epochs, exposure).unwrap();
        let facts = facts(&config(), &host(), &kube(), None).unwrap();
        for _ in 0..2 {
            programs.sync(&config(), &facts, &host()).await.unwrap();
        }
        let early = hooks.attached().into_keys().filter(|pin| is_pin(pin)).collect();
        (early, told.borrow().values().copied().collect())
    }

    #[tokio::test]
    async fn what_is_attached_follows_what_is_wanted_over_restarts() {
        let hooks = fake::Hooks::default();
        let [native, generic] = ALL.map(|mode| ["eth0", "eth1"].map(|device| pin(device, mode)).to_vec());
        let both = |mode| vec![mode; 2];
        assert_eq!(attached(&hooks, &[]).await, (vec![], vec![]));
        assert_eq!(attached(&hooks, &ALL[1..]).await, (generic.clone(), both(XdpMode::Generic)));
        assert_eq!(attached(&hooks, &ALL).await, (generic, both(XdpMode::Generic)), "it stays where it is");
        assert_eq!(attached(&hooks, &ALL[..1]).await, (native, both(XdpMode::Native)));
        assert_eq!(attached(&hooks, &[]).await, (vec![], vec![]), "it is taken away");
    }

    #[tokio::test]
    async fn a_driver_that_cannot_is_no_fault() {
        let hooks = fake::Hooks::without_native_xdp();
        assert_eq!(attached(&hooks, &ALL[..1]).await, (vec![], vec![]));
        let generic = ["eth0", "eth1"].map(|device| pin(device, XdpMode::Generic)).to_vec();
        assert_eq!(attached(&hooks, &ALL).await, (generic, vec![XdpMode::Generic; 2]));
        assert_eq!(hooks.attached().keys().filter(|pin| !is_pin(pin)).count(), 2, "they are served at tc");
    }

    #[test]
    fn pins_are_told_from_others() {
        assert!(is_pin(&pin("eth0", XdpMode::Native)) && is_pin(&pin("eth0.7", XdpMode::Generic)));
        assert!(!is_pin("dev_eth0_ingress"));
    }
}
