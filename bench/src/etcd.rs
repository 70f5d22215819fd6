// SPDX-License-Identifier: Apache-2.0
//! Objects written into a lab's etcd as its API server stores them: tens of thousands within seconds, where the API server would take many minutes on
//! two processors. The API server, and whoever watches it, hear of them as of any others. Nothing checks them: they must be complete.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::place::enter_netns;

/// Where it listens, on the control plane's machine.
const PORT: u16 = 2379;
/// Writes that it takes at once by default.
const AT_ONCE: usize = 128;
const PATIENCE: Duration = Duration::from_secs(20);

/// The etcd of a lab.
#[derive(Debug)]
pub(crate) struct Etcd {
    netns: PathBuf,
}

/// An object and its key below `/registry/`.
pub(crate) type Stored = (String, Value);

impl Etcd {
    /// The one behind a cluster.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Self { netns: format!("/proc/{}/ns/net", cluster.first_process("control")?).into() })
    }

    /// Writes objects, in their order.
    pub(crate) fn write(&self, objects: &[Stored]) -> Result<()> {
        let inside = || {
            enter_netns(&self.netns)?;
            objects.chunks(AT_ONCE).try_for_each(put)
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| Err(anyhow!("a thread ended")))
    }
}

/// Writes objects in one transaction, by etcd's gateway for HTTP.
fn put(objects: &[Stored]) -> Result<()> {
    let body = transaction(objects).to_string();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("etcd does not listen")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("POST /v3/kv/txn HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).context("writing to etcd")?;
    let mut said = String::new();
    stream.read_to_string(&mut said).context("reading from etcd")?;
    ensure!(said.starts_with("HTTP/1.1 200 "), "etcd says {said}");
    Ok(())
}

fn transaction(objects: &[Stored]) -> Value {
    let encoded = |text: &str| BASE64_STANDARD.encode(text);
    let put = |(key, object): &Stored| {
        let key = encoded(&format!("/registry/{key}"));
        json!({"requestPut": {"key": key, "value": encoded(&object.to_string())}})
    };
    json!({"success": objects.iter().map(put).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_objects_are_written_in_base64() {
        let written = transaction(&[("a".to_owned(), json!({"b": 1}))]);
        let put = json!({"requestPut": {"key": "L3JlZ2lzdHJ5L2E=", "value": "eyJiIjoxfQ=="}});
        assert_eq!(written, json!({"success": [put]}));
    }
}
