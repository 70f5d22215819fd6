// SPDX-License-Identifier: Apache-2.0
//! Blocking work: waiting for the kernel or a disk.

/// Runs blocking work on a thread set aside for it, so that no other task is held up. A panic propagates to the caller.
/// Dropping the future does not stop the work.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // Keep the caller's span for what the work logs.
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is shutting down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::blocking;
    use std::sync::mpsc;

    #[tokio::test]
    async fn other_tasks_go_on_while_the_work_waits() {
        let (send, receive) = mpsc::channel();
        // There is a single runtime thread: if the work blocked it, nobody would send.
        let (received, ()) = tokio::join!(blocking(move || receive.recv().unwrap()), async { send.send(7).unwrap() });
        assert_eq!(received, 7);
    }

    #[tokio::test]
    #[should_panic(expected = "of the work")]
    async fn a_panic_of_the_work_is_the_callers() {
        blocking(|| panic!("of the work")).await;
    }
}
