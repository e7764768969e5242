//! `chaos`: the program behind `infra/chaos.sh`.

use std::process::ExitCode;

use clap::Parser;
use millrace_benches::results::say;
use millrace_chaos::options::Options;
use millrace_chaos::{recovery, run};

/// Makes real faults under load and judges what came of it.
#[derive(Debug, Parser)]
#[command(after_help = "infra/chaos.sh builds what is needed, starts servers and runs this.")]
struct Cli {
    #[command(flatten)]
    options: Options,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Cli::parse().options;
    let failures = match options.recovery {
        Some(times) => recovery::run(&options, times).await?,
        None => run::run(&options).await?,
    };
    if failures.is_empty() {
        say("everything holds");
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{} failures", failures.len()));
    Ok(ExitCode::FAILURE)
}
