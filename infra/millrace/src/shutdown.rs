//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Waits until the process is asked to stop, and passes it on.
pub async fn passed_on(stop: &CancellationToken) -> anyhow::Result<()> {
    let requested = requested().await;
    stop.cancel();
    requested
}

/// Waits until the process is asked to stop. A second request ends it at once: nothing is lost, for
/// what is not committed is read again.
pub async fn requested() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: the batch in hand is finished; a second signal ends at once");
    std::thread::Builder::new()
        .name("second-signal".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async {
                    tokio::select! {
                        Some(()) = terminate.recv() => std::process::exit(130),
                        Some(()) = interrupt.recv() => std::process::exit(130),
                        // No signal can come any more: the process ends as it was about to.
                        else => {}
                    }
                });
            }
        })?;
    Ok(())
}
