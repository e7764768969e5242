//! `millrace`: the one binary. Each subcommand is a service or a tool that wires the crates.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | flags and environment; wrong values exit 64 before anything happens |
//! | [`commands`] | one file per subcommand |
//! | [`dev`] | the private servers of `millrace dev` |
//! | [`telemetry`] | logs and the metrics' recorder |
//! | [`admin`] | `/metrics`, `/livez`, `/readyz` |
//! | [`shutdown`] | the signals |
//! | [`signing`] | the keys and signatures of checkpoints |

mod admin;
mod cli;
mod commands;
mod dev;
mod operator;
mod parking;
mod shutdown;
mod signing;
mod telemetry;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(error),
    };
    telemetry::init_logs(cli.log_format, cli.log());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(cli.into_command())) {
        Ok(code) => code,
        Err(failure) => cli::fail(&failure),
    }
}
