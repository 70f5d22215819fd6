// SPDX-License-Identifier: Apache-2.0
//! Hubble in the agent's status.

use crate::Figures;
use rest::{HubbleObserver, HubbleStatus, State};

/// Figures of its ring if it is running, and why flows are not served where they should be.
pub(crate) fn render(figures: Option<Figures>, problems: &[String]) -> HubbleStatus {
    let Some(figures) = figures else { return HubbleStatus::default() };
    HubbleStatus {
        state: if problems.is_empty() { State::Ok } else { State::Warning },
        msg: problems.join("; "),
        observer: Some(HubbleObserver {
            max_flows: figures.max,
            current_flows: figures.current,
            seen_flows: figures.seen,
            uptime: format!("{}s", figures.uptime.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_flows_are_not_served_is_a_warning_of_render() {
        let figures = || {
            let uptime = std::time::Duration::from_secs(61);
            Some(Figures { current: 1, max: 4095, bytes: 600, seen: 7, rate: 0.0, uptime })
        };
        let fine = render(figures(), &[]);
        assert_eq!((fine.state, fine.msg.as_str()), (State::Ok, ""));
        assert_eq!(fine.observer.map(|o| (o.seen_flows, o.uptime)), Some((7, "61s".to_owned())));
        let missing = render(figures(), &["network: no server.crt".to_owned()]);
        assert_eq!((missing.state, missing.msg.as_str()), (State::Warning, "network: no server.crt"));
        assert_eq!(render(None, &[]).state, State::Disabled);
    }
}
