//! What the binary says and how it ends.

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};

use crate::http::Service;
use crate::place::{Place, millrace};
use crate::process::{Ended, until};
use crate::records::{publish, transfer};
use crate::servers::Addresses;

/// A place whose servers need not be asked for.
async fn run(place: &Place, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = place.command(arguments);
    command.envs(environment.iter().copied());
    place.start_command(command, "tool").end().await
}

#[tokio::test]
async fn every_command_explains_itself() {
    let place = Place::bare(Addresses::shared(), "help", 1).await;
    for command in [
        "",
        "dev",
        "gateway",
        "query",
        "migrate",
        "topics",
        "topics create",
        "ledger",
        "project",
        "import",
        "generate",
        "accounts",
        "accounts set",
        "accounts default",
        "accounts show",
        "sim",
        "verify",
    ] {
        let arguments: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let mut help = millrace();
        help.args(&arguments);
        let ended = place.start_command(help, "help").end().await.expect(0);
        for part in ["Usage: ", "Example"] {
            assert!(ended.out.contains(part), "{command}: {ended:?}");
        }
    }
    let ended = place.run(&["--version"]).await.expect(0);
    assert_eq!(
        ended.out,
        concat!("millrace ", env!("CARGO_PKG_VERSION"), "\n")
    );
    place
        .run(&["frobnicate"])
        .await
        .expect(64)
        .names(&["frobnicate"]);
}

/// Arguments | environment | what the error must name.
const WRONG: &str = r#"
    ledger --brokers nowhere                        |                                     | --brokers nowhere
    ledger                                          | MILLRACE_BROKERS=a:1,b              | MILLRACE_BROKERS "b"
    ledger --topic a/b                              |                                     | --topic a/b
    generate                                        | MILLRACE_TOPIC=                     | MILLRACE_TOPIC
    ledger --lanes 0                                |                                     | --lanes
    ledger                                          | MILLRACE_LANES=two                  | MILLRACE_LANES two
    ledger --database-url mysql://x                 |                                     | --database-url
    migrate                                         | DATABASE_URL=host                   | DATABASE_URL
    ledger --admin-listen 9465                      |                                     | --admin-listen 9465
    ledger                                          | MILLRACE_ADMIN_LISTEN=localhost     | MILLRACE_ADMIN_LISTEN
    ledger --admin-listen 0.0.0.0:0                 |                                     | --admin-listen --insecure-bind
    ledger                                          | MILLRACE_ADMIN_LISTEN=[::]:0        | MILLRACE_ADMIN_LISTEN --insecure-bind
    gateway --listen 8080                           |                                     | --listen 8080
    gateway                                         | MILLRACE_LISTEN=localhost:8080      | MILLRACE_LISTEN localhost
    gateway --listen 0.0.0.0:0                      |                                     | --listen --insecure-bind
    gateway                                         | MILLRACE_ADMIN_LISTEN=[::]:0        | MILLRACE_ADMIN_LISTEN --insecure-bind
    gateway --brokers nowhere                       |                                     | --brokers nowhere
    gateway                                         | MILLRACE_KAFKA_ACKS=1               | acks
    gateway                                         | MILLRACE_KAFKA_NO_SUCH_THING=1      | no.such.thing
    query --listen 127.0.0.1                        |                                     | --listen 127.0.0.1
    query                                           | MILLRACE_LISTEN=[::]:0              | MILLRACE_LISTEN --insecure-bind
    query                                           | DATABASE_URL=host                   | DATABASE_URL
    query --connections 0                           |                                     | --connections
    dev --rate 5001                                 |                                     | --rate 5001
    dev --partitions 0                              |                                     | --partitions
    dev                                             | MILLRACE_DEV_RATE=fast              | MILLRACE_DEV_RATE fast
    project --admin-listen 0.0.0.0:0                |                                     | --admin-listen --insecure-bind
    project --workers 0                             |                                     | --workers
    ledger --log millrace=loud                      |                                     | --log
    ledger                                          | MILLRACE_LOG_FORMAT=xml             | MILLRACE_LOG_FORMAT xml
    ledger                                          | MILLRACE_KAFKA_NO_SUCH_THING=1      | no.such.thing
    ledger                                          | MILLRACE_KAFKA_SESSION_TIMEOUT_MS=x | session.timeout.ms
    ledger                                          | MILLRACE_KAFKA_ENABLE_AUTO_COMMIT=1 | enable.auto.commit
    generate                                        | MILLRACE_KAFKA_ACKS=1               | acks
    generate                                        | MILLRACE_KAFKA_NO_SUCH_THING=1      | no.such.thing
    import - --format ndjson                        | MILLRACE_KAFKA_PARTITIONER=random   | partitioner
    topics create                                   | MILLRACE_KAFKA_NO_SUCH_THING=1      | no.such.thing
    topics create --topic ..                        |                                     | --topic
    ledger                                          | MILLRACE_KAFKA_BOOTSTRAP_SERVERS=a  | bootstrap.servers --brokers
    generate                                        | MILLRACE_KAFKA_BOOTSTRAP_SERVERS=a  | bootstrap.servers --brokers
    generate --rate 0                               |                                     | rate
    generate --count -1                             |                                     | --count -1
    project                                         | MILLRACE_WORKERS=0                  | MILLRACE_WORKERS at least 1
    generate --accounts 1                           |                                     | accounts
    generate --skew steep                           |                                     | --skew
    generate --external-share 2                     |                                     | external
    generate --currency EUX                         |                                     | --currency EUX
    topics create --partitions 0                    |                                     | --partitions
    accounts set a                                  |                                     | --overdraft-limit --status
    accounts set Not-Me --status open               |                                     | Not-Me
    accounts set a --status asleep                  |                                     | --status asleep
    accounts set a --overdraft-limit -5             |                                     | --overdraft-limit -5
    accounts set external:x --overdraft-limit 5     |                                     | external:x
    accounts default --overdraft-limit 0.5          |                                     | --overdraft-limit 0.5
    accounts set a --currency E --overdraft-limit 1 |                                     | --currency
    accounts set a --currency EUR --status open     |                                     | --overdraft-limit
    import a.csv                                    |                                     | --map
"#;

#[tokio::test]
async fn a_wrong_flag_or_variable_is_named_before_anything_happens() {
    let place = Place::bare(Addresses::shared(), "usage", 1).await;
    let mut wrong = Vec::new();
    for case in WRONG.trim().lines() {
        let mut columns = case.split('|').map(str::split_whitespace);
        let mut column = || columns.next().unwrap().collect::<Vec<_>>();
        let (arguments, environment, words) = (column(), column(), column());
        let environment: Vec<_> = environment
            .iter()
            .map(|pair| pair.split_once('=').unwrap())
            .collect();
        let ended = run(&place, &arguments, &environment).await;
        let named = words.iter().all(|word| ended.err.contains(word));
        if ended.code != Some(64) || !named || ended.err.contains("admin port") {
            wrong.push(format!("{case}: {ended:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_missing_database_url_is_named() {
    let place = Place::bare(Addresses::shared(), "no-url", 1).await;
    for arguments in [
        &["ledger"][..],
        &["migrate"],
        &["query"],
        &["verify"],
        &["accounts", "show"],
    ] {
        let mut command = millrace();
        command.args(arguments);
        let ended = place.start_command(command, "tool").end().await.expect(64);
        ended.names(&["--database-url"]);
    }
}

#[tokio::test]
async fn no_error_shows_a_password() {
    let place = Place::bare(Addresses::shared(), "secret", 1).await;
    let mut shown = Vec::new();
    for url in [
        "postgres://user:hunter2@127.0.0.1:1/x",
        "postgres://user:hunter2@127.0.0.1:port/x",
        "postgres://user:hunter2@127.0.0.1:1/x?sslmode=perhaps",
        "mysql://user:hunter2@127.0.0.1/x",
    ] {
        for arguments in [&["verify"][..], &["verify", "--database-url", url]] {
            let ended = run(&place, arguments, &[("DATABASE_URL", url)]).await;
            assert!(matches!(ended.code, Some(1 | 64)), "{ended:?}");
            if ended.err.contains("hunter2") {
                shown.push(ended.err);
            }
        }
    }
    assert_eq!(shown, [""; 0]);
    let help = run(
        &place,
        &["ledger", "--help"],
        &[("DATABASE_URL", "postgres://u:hunter2@h/x")],
    )
    .await;
    assert!(!help.out.contains("hunter2"));
    let secret = ("MILLRACE_KAFKA_SASL_PASSWORD", "hunter2");
    let mistyped = ("MILLRACE_KAFKA_SASL_PASWORD", "hunter2");
    for environment in [[secret, ("MILLRACE_KAFKA_ACKS", "1")], [secret, mistyped]] {
        let ended = run(&place, &["generate", "--count", "1"], &environment).await;
        assert!(!ended.err.contains("hunter2"), "{ended:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_answered_with_the_command_that_creates_it() {
    let place = Place::bare(Addresses::shared(), "missing", 2).await;
    for arguments in [
        &["verify"][..],
        &["accounts", "show"],
        &["accounts", "set", "a", "--status", "open"],
    ] {
        place
            .run(arguments)
            .await
            .expect(1)
            .names(&["millrace migrate"]);
    }
    let ledger = place.ledger(1).await;
    until(
        "the ledger asks for the migration or the topic",
        async || {
            let log = ledger.log();
            (log.contains("millrace migrate") || log.contains("millrace topics create"))
                .then_some(())
        },
    )
    .await;
    ledger.becomes_unready().await;
    place.run(&["migrate"]).await.expect(0);
    place
        .run(&["generate", "--count", "1"])
        .await
        .expect(1)
        .names(&["millrace topics create"]);
    until("the ledger asks for the topic", async || {
        ledger
            .log()
            .contains("millrace topics create")
            .then_some(())
    })
    .await;
    let detail = ledger.becomes_unready().await;
    assert!(
        detail.to_string().contains("millrace topics create"),
        "{detail}"
    );
    place
        .run(&["topics", "create", "--partitions", "2"])
        .await
        .expect(0);
    ledger.becomes_ready().await;
    let publisher = place.publisher().await;
    publish(&publisher, &[transfer(1, "a", "b", 1)]).await;
    place.drained().await;
    assert_eq!(
        place.number("select count(*) from millrace.ledger").await,
        1
    );
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_database_that_is_not_there_yet_is_waited_for() {
    let place = Place::new("created-late", 2).await;
    let database = place.topic();
    place
        .execute_at_server(&format!("drop database \"{database}\""))
        .await;
    let ledger = place.ledger(1).await;
    ledger.becomes_unready().await;
    place.create_database().await;
    place.run(&["migrate"]).await.expect(0);
    ledger.becomes_ready().await;
    publish(&place.publisher().await, &[transfer(1, "a", "b", 1)]).await;
    place.drained().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn migrating_is_repeatable_and_a_newer_database_is_refused() {
    let place = Place::new("newer", 1).await;
    let version = place
        .number("select max(version) from _sqlx_migrations")
        .await;
    let again = place.run(&["migrate"]).await.expect(0);
    assert!(
        again
            .out
            .contains(&format!("schema version {version} already")),
        "{again:?}"
    );
    place
        .execute(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (9999, 'from the future', true, '', 0)",
        )
        .await;
    let known = format!("up to {version}");
    for arguments in [&["migrate"][..], &["verify"], &["accounts", "show"]] {
        place
            .run(arguments)
            .await
            .expect(1)
            .names(&["9999", &known]);
    }
    let ledger = place.ledger(1).await;
    until("the ledger names both versions", async || {
        let log = ledger.log();
        (log.contains("9999") && log.contains(&known)).then_some(())
    })
    .await;
    ledger.becomes_unready().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn two_migrations_at_once_do_no_harm() {
    let place = Place::bare(Addresses::shared(), "two", 1).await;
    let both = [place.start(&["migrate"]), place.start(&["migrate"])];
    for one in both {
        one.end().await.expect(0);
    }
    place.run(&["verify", "--no-log"]).await.expect(0);
}

#[tokio::test]
async fn topics_are_created_once_and_checked_after() {
    let place = Place::new("topic", 3).await;
    let create = |count: &'static str| ["topics", "create", "--partitions", count];
    let again = place.run(&create("3")).await.expect(0);
    assert!(again.out.contains("exists with 3 partitions"), "{again:?}");
    place
        .run(&create("4"))
        .await
        .expect(1)
        .names(&["3 partitions, not 4"]);
    compact(&place).await;
    place
        .run(&create("3"))
        .await
        .expect(1)
        .names(&["cleanup.policy=compact"]);
    let ended = place.ledger(1).await.ends().await;
    ended.expect(1).names(&["cleanup.policy=compact"]);
}

async fn compact(place: &Place) {
    let topic = ResourceSpecifier::Topic(place.topic());
    let compacted = AlterConfig::new(topic).set("cleanup.policy", "compact");
    let altered = place
        .kafka_admin()
        .alter_configs([&compacted], &AdminOptions::new())
        .await;
    altered.unwrap()[0].as_ref().unwrap();
}

#[tokio::test]
async fn a_compacted_topic_that_comes_after_the_ledger_ends_it_too() {
    let place = Place::bare(Addresses::shared(), "compacted-late", 1).await;
    place.run(&["migrate"]).await.expect(0);
    let ledger = place.ledger(1).await;
    ledger.becomes_unready().await;
    place
        .run(&["topics", "create", "--partitions", "1"])
        .await
        .expect(0);
    compact(&place).await;
    let ended = ledger.ends().await;
    ended.expect(1).names(&["cleanup.policy=compact"]);
}

#[tokio::test]
async fn metrics_and_health_are_served_and_logs_can_be_json() {
    let place = Place::new("metrics", 2).await;
    let mut command = place.ledger_command(&["--lanes", "1", "--log-format", "json"]);
    command.env("MILLRACE_REPLICA", "number-one");
    let ledger = place.replica(command).await;
    publish(
        &place.publisher().await,
        &[transfer(1, "a", "b", 1), transfer(1, "a", "b", 1)],
    )
    .await;
    place.drained().await;
    until("the position is shown", async || {
        (ledger.metric("millrace_ledger_position_offset") >= 2.0).then_some(())
    })
    .await;
    let (status, metrics) = ledger.get("/metrics").unwrap();
    assert_eq!(status, 200);
    for name in [
        "millrace_ledger_records_total",
        "millrace_ledger_batch_records",
        "millrace_ledger_stage_seconds",
        "millrace_ledger_position_offset",
        "millrace_ledger_log_end_offset",
        "millrace_ledger_lag_seconds",
        "millrace_ledger_partition_active",
    ] {
        assert!(
            metrics.contains(&format!("# HELP {name} ")),
            "no {name} in {metrics}"
        );
    }
    assert_eq!(
        ledger.metric("millrace_ledger_records_total").to_string(),
        "2"
    );
    assert_eq!(ledger.get("/livez").unwrap().0, 200);
    assert_eq!(ledger.get("/nothing").unwrap().0, 404);
    let owner = place
        .rows("select distinct owner from millrace.partition_status")
        .await;
    assert_eq!(owner, ["(number-one/0)"]);
    let ended = ledger.stop().await.expect(0);
    for line in ended.err.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(parsed["level"].is_string(), "{line}");
        assert_ne!(parsed["level"], "ERROR", "nothing went wrong: {line}");
    }
}

#[tokio::test]
async fn a_taken_admin_port_ends_the_process_and_names_it() {
    let place = Place::new("taken", 1).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = place.ledger_command(&["--lanes", "1"]);
    command.env("MILLRACE_ADMIN_LISTEN", &address);
    let ended = place.start_command(command, "ledger").end().await;
    ended.expect(1).names(&[&address]);
}

#[tokio::test]
async fn a_taken_port_of_an_http_service_is_named_with_its_flag() {
    let place = Place::new("taken-http", 1).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for service in ["gateway", "query"] {
        let mut by_flag = place.service_command(service);
        by_flag.args(["--listen", &address]);
        let mut by_environment = place.service_command(service);
        by_environment.env("MILLRACE_LISTEN", &address);
        let mut admin = place.service_command(service);
        admin.args(["--admin-listen", &address]);
        for (command, flag) in [
            (by_flag, "--listen"),
            (by_environment, "--listen"),
            (admin, "--admin-listen"),
        ] {
            let ended = place.start_command(command, service).end().await.expect(1);
            ended.names(&[&address, flag]);
        }
    }
}

#[tokio::test]
async fn http_services_say_where_they_listen_and_flags_come_before_the_environment() {
    let place = Place::new("listen", 1).await;
    for service in ["gateway", "query"] {
        let mut command = place.service_command(service);
        command
            .env("MILLRACE_LISTEN", "192.0.2.1:1")
            .args(["--listen", "[::1]:0"]);
        let service = Service::of(place.replica(command).await, service).await;
        assert!(service.http.address.is_ipv6(), "{}", service.http.address);
        service.http.get("/openapi.json").await.expect(200);
        service.replica.stop().await.expect(0);
    }
}
