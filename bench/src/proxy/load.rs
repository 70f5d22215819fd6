// SPDX-License-Identifier: Apache-2.0
//! The load: nghttp2's `h2load`, with one request at a time on each connection.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Ports, Protocol, last_cpu, on};
use crate::{run, stats};

/// What was seen of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Requests that were answered with 2xx.
    pub(super) requests: f64,
    pub(super) rate: f64,
    /// Milliseconds.
    pub(super) p99: f64,
}

/// A load.
pub(super) struct Load {
    port: u16,
    protocol: Protocol,
    connections: usize,
    /// Requests per second of all connections; as many as there can be if unset.
    pace: Option<f64>,
}

impl Load {
    pub(super) fn new(ports: Ports, protocol: Protocol, connections: usize) -> Self {
        Self { port: ports.of(protocol), protocol, connections, pace: None }
    }

    pub(super) fn paced(self, pace: f64) -> Self {
        Self { pace: Some(pace), ..self }
    }

    /// Loads for so long. Any request that fails is an error.
    pub(super) fn run(&self, span: Duration) -> Result<Measured> {
        let log = Log(std::env::temp_dir().join(format!("bench-h2load-{}-{}", std::process::id(), self.port)));
        let scheme = if self.protocol == Protocol::Tls { "https" } else { "http" };
        let mut command = on(last_cpu(), "h2load");
        command.args(["--clients", &self.connections.to_string(), "--threads", "1", "--max-concurrent-streams", "1"]);
        command.arg(format!("--duration={}", span.as_secs_f64().ceil()));
        command.arg(format!("--log-file={}", log.0.display()));
        if self.protocol == Protocol::Http1 {
            command.arg("--h1");
        }
        if let Some(pace) = self.pace {
            command.arg(format!("--rps={:.3}", pace / self.connections as f64));
        }
        let said = run::output(command.arg(format!("{scheme}://127.0.0.1:{}/", self.port)))?;
        let lines = fs::read_to_string(&log.0).context("h2load writes no log")?;
        measured(&said, &lines)
    }
}

/// A file that goes with the value.
struct Log(PathBuf);

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What h2load says in the end, and of each request: when it began, its status, and how many microseconds it took.
fn measured(said: &str, log: &str) -> Result<Measured> {
    let line = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let count = |text: &str, of: &str| -> f64 {
        let words: Vec<_> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let pair = words.windows(2).find(|pair| pair.last() == Some(&of));
        pair.and_then(|pair| pair.first()?.parse().ok()).unwrap_or(f64::NAN)
    };
    let requests = line("requests:");
    let succeeded = count(requests, "succeeded");
    let failed = count(requests, "failed") + count(requests, "errored");
    ensure!(succeeded > 0.0 && failed == 0.0, "requests:{requests}");
    let rate = count(line("finished in"), "req/s");
    let times = log.lines().filter_map(|line| line.split('\t').nth(2)?.parse::<f64>().ok());
    let times: Vec<f64> = times.map(|microseconds| microseconds / 1e3).collect();
    Ok(Measured { requests: succeeded, rate, p99: stats::percentile(&times, 0.99) })
}

#[cfg(test)]
mod tests {
    use super::measured;

    const SAID: &str = "finished in 2.00s, 1234.50 req/s, 1.2MB/s\nrequests: 2470 total, 2471 started, 2470 done, 2469 succeeded, 0 failed, 0 errored, 0 timeout\n";

    #[test]
    fn what_h2load_says_is_read() {
        let log = "1\t200\t1000\n2\t200\t3000\n";
        let measured = measured(SAID, log).unwrap();
        assert_eq!((measured.requests, measured.rate, measured.p99), (2469.0, 1234.5, 3.0));
    }

    #[test]
    fn a_request_that_fails_is_no_figure() {
        assert!(measured(&SAID.replace("0 failed", "1 failed"), "").is_err());
        assert!(measured("", "").is_err());
    }
}
