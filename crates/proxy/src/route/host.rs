// SPDX-License-Identifier: Apache-2.0
//! Values by host name, the most specific first.

use imbl::HashMap;
use l7::HostMatch;
use std::sync::Arc;

/// Values by the hosts that they are for. A clone shares everything that does not change.
#[derive(Clone, Debug)]
pub(crate) struct HostMap<T> {
    exact: HashMap<Arc<str>, T>,
    below: HashMap<Arc<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), any: None }
    }
}

impl<T: Clone> HostMap<T> {
    pub(crate) fn get(&self, host: &HostMatch) -> Option<&T> {
        match host {
            HostMatch::Exact(name) => self.exact.get(name),
            HostMatch::Below(domain) => self.below.get(domain),
            HostMatch::Any => self.any.as_ref(),
        }
    }

    pub(crate) fn set(&mut self, host: &HostMatch, value: T) {
        match host {
            HostMatch::Exact(name) => drop(self.exact.insert(name.clone(), value)),
            HostMatch::Below(domain) => drop(self.below.insert(domain.clone(), value)),
            HostMatch::Any => self.any = Some(value),
        }
    }

    pub(crate) fn remove(&mut self, host: &HostMatch) {
        match host {
            HostMatch::Exact(name) => drop(self.exact.remove(name)),
            HostMatch::Below(domain) => drop(self.below.remove(domain)),
            HostMatch::Any => self.any = None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty() && self.any.is_none()
    }

    /// The values for `host`, the most specific first.
    pub(crate) fn candidates<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a T> + use<'a, 'h, T> {
        let exact = self.exact.get(host);
        let domains = if self.below.is_empty() { "" } else { host };
        let below = domains.match_indices('.').filter(|(dot, _)| *dot > 0).filter_map(|(dot, _)| {
            let domain = host.get(dot + 1..)?;
            self.below.get(domain)
        });
        exact.into_iter().chain(below).chain(self.any.as_ref())
    }
}
