//! Every kind of fault once, from a seed, under load: what `infra/chaos.sh` does for hours.

use millrace_chaos::faults::Kind;
use millrace_chaos::options::Options;
use millrace_chaos::run::run;

use crate::servers::OwnServers;

#[tokio::test]
async fn every_kind_of_fault_loses_nothing_posts_nothing_twice_and_keeps_the_order() {
    let servers = OwnServers::start_with("chaos", &["--ways", "4"]);
    let options = Options {
        minutes: 0.0,
        seed: 2,
        replicas: 3,
        rate: 500.0,
        // As fast as recovery lets them follow each other.
        faults_per_minute: 60.0,
        session_timeout_ms: 1_500,
        partitions: 6,
        accounts: 300,
        kinds: Kind::all().to_vec(),
        each_once: true,
        recovery: None,
        results: None,
        servers: servers.dir().to_owned(),
        millrace: env!("CARGO_BIN_EXE_millrace").into(),
    };
    let failures = run(&options).await.unwrap();
    assert_eq!(failures, [""; 0]);
}
