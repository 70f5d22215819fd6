// SPDX-License-Identifier: Apache-2.0
//! `hubble watch peers`: which nodes serve flows, and what changes.

use super::connect::Connection;
use super::print::clean;
use anyhow::Result;
use hubble::proto::peer::peer_client::PeerClient;
use hubble::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest};
use std::io::{Write, stdout};

/// Runs the command.
pub(super) async fn peers(connection: &Connection) -> Result<()> {
    let mut client = PeerClient::new(connection.connect().await?);
    connection.each(client.notify(NotifyRequest {}).await, |change| Ok(writeln!(stdout(), "{}", line(change))?)).await
}

fn line(change: &ChangeNotification) -> String {
    let kind = match change.r#type() {
        ChangeNotificationType::PeerAdded => "PEER_ADDED",
        ChangeNotificationType::PeerDeleted => "PEER_DELETED",
        ChangeNotificationType::PeerUpdated => "PEER_UPDATED",
        ChangeNotificationType::Unknown => "UNKNOWN",
    };
    let tls = change.tls.as_ref().map(|tls| format!(" (TLS: {})", clean(&tls.server_name))).unwrap_or_default();
    format!("{kind:<12} {} {}{tls}", clean(&change.address), clean(&change.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hubble::proto::peer::Tls;

    #[test]
    fn a_change_is_a_line_without_commands_for_the_terminal() {
        let change = ChangeNotification {
            name: "blue/n1\x1b[2J".to_owned(),
            address: "192.168.0.1:4244".to_owned(),
            r#type: ChangeNotificationType::PeerAdded.into(),
            tls: Some(Tls { server_name: "n1.blue.hubble-grpc.cilium.io".to_owned() }),
        };
        let text = line(&change);
        assert!(text.starts_with("PEER_ADDED   192.168.0.1:4244 blue/n1") && text.contains("(TLS: n1."), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }
}
