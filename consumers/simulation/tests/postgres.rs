//! The same schedules over the ledger's own statements, and the database in memory held against them.
//! Needs a Postgres whose superuser's URL is in `DATABASE_URL`.

use millrace_simulation::postgres::Server;
use millrace_simulation::{Options, run_in_memory_as_over_postgres};

/// How many seeds: each takes about a second, for its statements are real.
const SEEDS: u64 = 12;

#[tokio::test]
async fn a_run_over_postgres_keeps_the_promise_and_goes_as_one_in_memory() {
    let url = std::env::var("DATABASE_URL")
        .expect("DATABASE_URL is not set: start servers with infra/local/up.sh and load the env file that it names");
    let server = Server::prepare(&url.parse().unwrap()).await.unwrap();
    let options = Options {
        steps: 1_500,
        ..Options::default()
    };
    for seed in 0..SEEDS {
        let real = server.run(seed, options).await.unwrap();
        if let Some(failure) = &real.failure {
            panic!("{}\nseed {seed}: {}", failure.last.join("\n"), failure.why);
        }
        let simulated = run_in_memory_as_over_postgres(seed, options);
        assert_eq!(simulated.failure, None, "seed {seed}");
        assert_eq!(real.counts, simulated.counts, "seed {seed}");
        assert_eq!(real.trace_hash, simulated.trace_hash, "seed {seed}");
    }
    server.tidy().await.unwrap();
}
