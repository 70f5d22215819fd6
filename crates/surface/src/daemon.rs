// SPDX-License-Identifier: Apache-2.0
//! What every daemon sets up first: its logs, and to stop on a signal.

use std::io::{self, IsTerminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Libraries whose own account of a failed request repeats what is logged when it begins to fail.
const INFO: &str = "info,kube=warn,kube_client=off";
const DEBUG: &str = "debug,h2=info,hyper=info,hyper_util=info,tower=info,kube=info,kube_client=off,rustls=info";

/// Writes logs to standard error. `RUST_LOG` chooses what is written; without it, `debug` does.
pub fn init_logs(debug: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| if debug { DEBUG } else { INFO }.into());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Whoever has set it up already keeps it.
    let _ = logs.with_ansi(io::stderr().is_terminal()).with_target(false).try_init();
}

/// Cancels the token on SIGTERM and SIGINT.
///
/// # Errors
///
/// Signals cannot be received.
pub fn stop_on_signal(token: CancellationToken) -> io::Result<()> {
    let [mut terminate, mut interrupt] = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down");
        token.cancel();
    });
    Ok(())
}
