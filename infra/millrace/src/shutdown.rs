//! SIGTERM and SIGINT; for a terminal's own program SIGHUP too.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Waits until the process is asked to stop, and passes it on.
pub async fn passed_on(stop: &CancellationToken) -> anyhow::Result<()> {
    let requested = requested().await;
    stop.cancel();
    requested
}

/// Waits until a terminal's program is asked to stop, also by its terminal's end unless that is ignored
/// (`nohup`). Further signals change nothing: what it started must be ended in order.
pub async fn requested_once() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = if is_ignored(SignalKind::hangup()) {
        None
    } else {
        Some(signal(SignalKind::hangup())?)
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(_) = async { Some(hangup.as_mut()?.recv().await) } => {}
    }
    Ok(())
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

/// Whether the process was started with this signal ignored, by `SigIgn` of `proc_pid_status(5)`.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}
