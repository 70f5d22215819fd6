// SPDX-License-Identifier: Apache-2.0
//! Opening sockets whose address is taken or not there yet.

use statedb::{Backoff, Retries};
use std::io;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// Back-off between failed attempts.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// Retries until it works. Logs when it begins to fail, when the reason changes, and when it finally works.
pub(crate) async fn open<T>(what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let (mut retries, mut told) = (Retries::new(RETRY), None);
    loop {
        match attempt() {
            Ok(opened) => {
                if told.is_some() {
                    info!("{what}: listening");
                }
                return opened;
            }
            Err(error) => {
                let why = error.to_string();
                if told.as_ref() != Some(&why) {
                    warn!(error = %why, "{what}: cannot listen, retrying");
                    told = Some(why);
                }
            }
        }
        sleep(retries.failed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_until_it_works() {
        let mut left = 10;
        let opened = open("test", || {
            left -= 1;
            if left == 0 { Ok("open") } else { Err(io::ErrorKind::AddrInUse.into()) }
        });
        assert_eq!(opened.await, "open");
    }
}
