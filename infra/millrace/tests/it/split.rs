//! A ledger over several databases, each with partitions of its own of one topic: it is the same ledger, except for
//! what crosses from one database to another, and that is shown too.

use std::process::Command;

use millrace_publisher::RawRecord;
use serde_json::Value;

use crate::log;
use crate::oracle::{acknowledged, assert_balances_of_topic};
use crate::place::Place;
use crate::process::{Ended, Replica, until};
use crate::records::{account_in, publish, publish_raw, transfer};
use crate::servers::repository;

/// 2026-01-02T03:04:05Z, in microseconds: a load that begins then is the same one however often it is sent.
const START: &str = "1767323045000000";

/// A ledger over two databases with half of the topic's partitions each, beside one that has all of them.
struct Split {
    whole: Place,
    halves: [Place; 2],
}

impl Split {
    async fn new(name: &str, partitions: i32) -> Self {
        let whole = Place::new(name, partitions).await;
        Self {
            halves: [half_of(&whole, 0).await, half_of(&whole, 1).await],
            whole,
        }
    }

    fn places(&self) -> [&Place; 3] {
        [&self.whole, &self.halves[0], &self.halves[1]]
    }

    /// Starts a ledger for each database: of all partitions, the lower and the upper half.
    async fn ledgers(&self, lanes: u32) -> [Replica; 3] {
        let [whole, low, high] = self.places().map(|place| place.ledger(lanes));
        [whole.await, low.await, high.await]
    }

    /// Waits until all have applied what is theirs.
    async fn drained(&self) {
        self.whole.drained().await;
        for (half, place) in self.halves.iter().enumerate() {
            drained(place, half).await;
        }
    }

    async fn verify(&self) {
        self.whole.verify().await;
        for place in &self.halves {
            place.verify().await;
        }
    }

    /// Runs a statement that gives a number in each: all, low, high.
    async fn numbers(&self, query: &str) -> [i64; 3] {
        let [whole, low, high] = self.places().map(|place| place.number(query));
        [whole.await, low.await, high.await]
    }
}

/// A database of the lower (0) or upper (1) half of the partitions.
async fn half_of(whole: &Place, half: i32) -> Place {
    let size = whole.partitions / 2;
    let served = format!("{}-{}", half * size, (half + 1) * size - 1);
    let place = whole.beside(["low", "high"][usize::from(half == 1)]).await;
    let migrated = place.run(&["migrate", "--partitions", &served]).await;
    assert!(
        migrated.expect(0).out.contains("it serves partitions "),
        "{served}"
    );
    place
}

/// Waits until a half has applied its part of the topic.
async fn drained(place: &Place, half: usize) {
    let ends = log::ends(place.brokers(), place.topic(), place.partitions);
    let parts: Vec<_> = ends.chunks(ends.len() / 2).collect();
    place.applied(parts[half].iter().sum()).await;
}

/// Runs one of `infra/postgres` in a database, of which `member` is another.
async fn sql(place: &Place, script: &str, member: &Place, name: &str) -> Ended {
    let url = member.database_url();
    let (login, dbname) = url.rsplit_once('/').unwrap();
    let (user, address) = login
        .strip_prefix("postgres://")
        .unwrap()
        .split_once('@')
        .unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let found = "select count(*) from pg_available_extensions where name = 'postgres_fdw'";
    assert_eq!(
        place.number(found).await,
        1,
        "the server has no postgres_fdw: install the package postgresql-contrib, or postgresql-15 of Debian"
    );
    let mut psql = Command::new("psql");
    psql.args(["-Xq", &place.database_url()]);
    for (variable, value) in [
        ("member", name),
        ("host", host),
        ("port", port),
        ("dbname", dbname),
        ("user", user),
        ("password", ""),
    ] {
        psql.args(["-v", &format!("{variable}={value}")]);
    }
    psql.arg("-f")
        .arg(repository().join("infra/postgres").join(script));
    place.start_command(psql, "psql").end().await
}

/// A database with the reports of both halves as one.
async fn federated(split: &Split) -> Place {
    let place = split.whole.beside("all").await;
    // To say again where a member is changes nothing.
    for (half, name) in [(0, "low"), (1, "high"), (0, "low")] {
        sql(&place, "federation.sql", &split.halves[half], name)
            .await
            .expect(0);
    }
    place
}

/// What analysts see, but when and in which batches it was recorded.
async fn figures(place: &Place) -> Vec<String> {
    let mut figures = Vec::new();
    for report in [
        "balances",
        "daily_totals",
        "account_days",
        "flows",
        "(select id, kind, debit_account, credit_account, amount, currency, exponent, occurred_at, reference,
             source, metadata, partition, seq, log_offset from reports.transactions) transactions",
        "(select partition, incarnation, start_offset, position, posted, duplicate, rejected, records, holds
             from reports.conservation) conservation",
    ] {
        let from = if report.starts_with('(') { report } else { &format!("reports.{report}") };
        let rows = place.rows(&format!("select * from {from}")).await;
        assert!(!rows.is_empty(), "{report}");
        figures.extend(rows.into_iter().map(|row| format!("{report} {row}")));
    }
    figures.sort_unstable();
    figures
}

/// How many transactions the load of the first test has; each is sent twice.
const COUNT: usize = 6_000;

#[tokio::test]
async fn two_databases_with_half_of_the_partitions_each_are_one_ledger() {
    let split = Split::new("split", 12).await;
    let ledgers = split.ledgers(2).await;
    let mut replicas = Vec::new();
    for place in split.places() {
        replicas.push(place.replica(place.project_command()).await);
    }
    replicas.extend(load_beside_a_crash(&split, ledgers).await);
    split.drained().await;
    for (half, place) in split.halves.iter().enumerate() {
        assert_proves_its_own(place, half).await;
    }
    split.whole.verify().await;
    for place in split.places() {
        place.folded().await;
    }
    let all = federated(&split).await;
    assert_each_is_in_one(&all).await;
    let (one, two) = (figures(&split.whole).await, figures(&all).await);
    for (one, two) in one.iter().zip(&two) {
        assert_eq!(
            one, two,
            "the first figure that differs (one database, two)"
        );
    }
    assert_eq!(one.len(), two.len());
    assert_read_in_place(&all).await;
    for replica in replicas {
        replica.stop().await.expect(0);
    }
}

/// Sends everything twice, at the same time, and kills the ledger of the lower half meanwhile. Gives the replicas that
/// are left.
async fn load_beside_a_crash(split: &Split, [whole, mut low, high]: [Replica; 3]) -> [Replica; 3] {
    let count = COUNT.to_string();
    let load = || {
        let mut arguments = vec!["generate", "--count", &count, "--rate", "800", "--accounts"];
        arguments.extend(["300", "--skew", "zipf:0.8", "--external-share", "0.1"]);
        arguments.extend(["--seed", "4", "--start", START]);
        split.whole.start(&arguments)
    };
    let loads = [load(), load()];
    let posted = "select coalesce(sum(posted), 0)::bigint from millrace.batches";
    until("the lower half is at work", async || {
        (split.halves[0].number(posted).await > 500).then_some(())
    })
    .await;
    low.process().kill();
    let low = split.halves[0].ledger(3).await;
    for load in loads {
        assert_eq!(acknowledged(&load.end().await), COUNT);
    }
    low.becomes_ready().await;
    let (_, detail) = low.readiness().unwrap();
    let owned = detail["partitions"].as_array().unwrap().iter();
    let numbers: Vec<_> = owned.map(|p| p["partition"].as_i64()).collect();
    assert_eq!(numbers, (0..6).map(Some).collect::<Vec<_>>(), "{detail}");
    [whole, low, high]
}

/// A half has its partitions alone, and its proof is complete without the others.
async fn assert_proves_its_own(place: &Place, half: usize) {
    let bounds = ["partition between 0 and 5", "partition between 6 and 11"][half];
    for report in ["freshness", "positions", "conservation", "transactions"] {
        let within = format!("select count(*) from reports.{report} where not ({bounds})");
        assert_eq!(place.number(&within).await, 0, "{report}");
    }
    let ended = place.run(&["verify"]).await.expect(0);
    let served = format!(
        "6 of 6 partitions (those that this database serves: {})",
        ["0-5", "6-11"][half]
    );
    assert!(
        ended.out.contains(&served) && ended.out.contains("records of the log"),
        "{ended:?}"
    );
    place.run(&["verify", "--no-log"]).await.expect(0);
}

/// Everything that was sent is in one of the databases, once, and the sums over both are those of the topic.
async fn assert_each_is_in_one(all: &Place) {
    assert_eq!(assert_balances_of_topic(all).await, COUNT);
    for query in [
        "select count(*) from reports.transactions",
        "select count(distinct id) from reports.transactions",
        "select sum(duplicate)::bigint from reports.conservation",
    ] {
        let found = all.number(query).await;
        assert_eq!(found, i64::try_from(COUNT).unwrap(), "{query}");
    }
    let uneven =
        "select count(*) from (select sum(debits) - sum(credits) as apart from reports.balances
                  group by currency) b where apart <> 0";
    assert_eq!(all.number(uneven).await, 0);
    let crossing = "select count(*) from ledger_low.balances join ledger_high.balances h using (account, currency)
                    where h.credits > 0 and account not like 'external:%'";
    assert!(all.number(crossing).await > 100, "few credits have crossed");
}

/// A question about one account is asked of both databases as such, and readers need no more than the reports.
async fn assert_read_in_place(all: &Place) {
    let mut connection = all.connect().await;
    sqlx::raw_sql("set role millrace_reader")
        .execute(&mut connection)
        .await
        .unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "explain (verbose, costs off) select * from reports.balances where account = 'acc-1'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let remote = plan
        .iter()
        .filter(|line| line.contains("Remote SQL") && line.contains("account = "));
    assert_eq!(remote.count(), 2, "{plan:#?}");
    let members: Vec<(String, Vec<i32>)> =
        sqlx::query_as("select member, partitions from reports.members order by partitions")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let wanted = [("low", 0..6), ("high", 6..12)].map(|(m, p)| (m.to_owned(), p.collect()));
    assert_eq!(members, wanted);
}

/// Publishes one transaction, waits until it is applied everywhere, and gives the verdicts: all, low, high.
async fn verdicts(
    split: &Split,
    number: u128,
    debit: &str,
    credit: &str,
    amount: i64,
) -> [String; 3] {
    let publisher = split.whole.publisher().await;
    let transaction = transfer(number, debit, credit, amount);
    let sent = publish(&publisher, [&transaction]).await;
    split.drained().await;
    let last = "select name from (
            select partition, log_offset, verdict as code from millrace.ledger
            union all select partition, log_offset, reason from millrace.refused
        ) o join millrace.reasons using (code) where kind = 'verdict' and (partition, log_offset) = ($1, $2)";
    let mut verdicts = [const { String::new() }; 3];
    for (verdict, place) in verdicts.iter_mut().zip(split.places()) {
        let found: Option<String> = sqlx::query_scalar(last)
            .bind(sent[0].partition)
            .bind(sent[0].offset)
            .fetch_optional(&mut place.connect().await)
            .await
            .unwrap();
        *verdict = found.unwrap_or_default();
    }
    verdicts
}

#[tokio::test]
async fn an_id_is_unique_in_each_database_and_not_over_both() {
    let split = Split::new("split-ids", 2).await;
    let _ledgers = split.ledgers(1).await;
    let (alice, bob) = (account_in(0, 2, "alice"), account_in(1, 2, "bob"));
    let publisher = split.whole.publisher().await;
    let first = transfer(1, &alice, "external:out", 10);
    publish(&publisher, [&first, &first]).await;
    split.drained().await;
    // The same content has the same key, partition and database: it is recognised as ever.
    publish(&publisher, [&first]).await;
    split.drained().await;
    let duplicates = "select coalesce(sum(duplicate), 0)::bigint from millrace.batches";
    assert_eq!(split.numbers(duplicates).await, [2, 2, 0]);
    // Other content with a key of the same database is a conflict as ever.
    let verdicts_of = verdicts(&split, 1, &alice, "external:out", 11).await;
    assert_eq!(verdicts_of, ["id_conflict", "id_conflict", ""]);
    // With a key of the other database it is not seen: both are posted.
    let verdicts_of = verdicts(&split, 1, &bob, "external:out", 20).await;
    assert_eq!(verdicts_of, ["id_conflict", "", "posted"]);
    let posted = "select count(*) from reports.transactions";
    assert_eq!(split.numbers(posted).await, [1, 1, 1]);
    split.verify().await;
    // Whoever reads over both sees it.
    let all = federated(&split).await;
    let twice = "select count(*) from (select id from reports.transactions group by id having count(*) > 1) t";
    assert_eq!(all.number(twice).await, 1);
}

/// Alice is at home in the lower half, Bob in the upper one; nobody may go below zero.
struct Funds {
    split: Split,
    _ledgers: [Replica; 3],
    alice: String,
    bob: String,
    next: u128,
}

impl Funds {
    async fn new(name: &str) -> Self {
        let split = Split::new(name, 2).await;
        for place in split.places() {
            let default = ["accounts", "default", "--overdraft-limit", "0"];
            place.run(&default).await.expect(0);
        }
        Self {
            _ledgers: split.ledgers(1).await,
            split,
            alice: account_in(0, 2, "alice"),
            bob: account_in(1, 2, "bob"),
            next: 0,
        }
    }

    /// Moves money; gives the verdicts of the whole and of the half that has decided.
    async fn moves(&mut self, debit: &str, credit: &str, amount: i64) -> (String, String) {
        self.next += 1;
        let named = |name: &str| match name {
            "alice" => self.alice.clone(),
            "bob" => self.bob.clone(),
            other => other.to_owned(),
        };
        let (debit, credit) = (named(debit), named(credit));
        let [whole, low, high] = verdicts(&self.split, self.next, &debit, &credit, amount).await;
        assert!(
            low.is_empty() != high.is_empty(),
            "in one of them: {low:?}, {high:?}"
        );
        (whole, low + &high)
    }

    /// The same, and both must agree to it.
    async fn moves_well(&mut self, debit: &str, credit: &str, amount: i64) {
        let verdicts = self.moves(debit, credit, amount).await;
        assert_eq!(verdicts, ("posted".into(), "posted".into()));
    }
}

const REJECTED: &str = "insufficient_funds";

#[tokio::test]
async fn funds_that_came_through_the_other_database_count_once_they_are_a_limit_or_come_in_two_steps()
 {
    let mut funds = Funds::new("split-funds").await;
    funds.moves_well("external:in", "alice", 100).await;
    funds.moves_well("external:in", "bob", 100).await;
    funds.moves_well("bob", "alice", 50).await;
    // Alice has 150, of which 50 are in the other database.
    let (whole, half) = funds.moves("alice", "external:out", 120).await;
    assert_eq!((&*whole, &*half), ("posted", REJECTED));

    // Her credits elsewhere only rise, so they are a safe lower bound whenever they are read: as a limit here.
    let all = federated(&funds.split).await;
    let alice = funds.alice.clone();
    let elsewhere = "select credits::bigint from ledger_high.balances where account = ";
    let limit = all.number(&format!("{elsewhere}'{alice}'")).await;
    assert_eq!(limit, 50);
    let limit = limit.to_string();
    let allow = ["accounts", "set", &alice, "--overdraft-limit", &limit];
    let [low, high] = &funds.split.halves;
    low.run(&allow).await.expect(0);
    // Where none of her debits are decided a limit would be one in name alone.
    let ended = high.run(&allow).await.expect(1);
    ended.names(&[&alice, "partition 0", "does not serve"]);
    let (_, half) = funds.moves("alice", "external:out", 120).await;
    assert_eq!(half, "posted");
    let (_, half) = funds.moves("alice", "external:out", 31).await;
    assert_eq!(half, REJECTED);

    // Or a payment goes in two steps: out of one database, and, once that is posted, into the other.
    funds.moves_well("bob", "external:to-low", 25).await;
    funds.moves_well("external:from-high", "alice", 25).await;
    funds.moves_well("alice", "external:out", 55).await;
    let (_, half) = funds.moves("bob", "external:out", 26).await;
    assert_eq!(half, REJECTED);
    // Over both nobody is overdrawn, and what is on its way between the two is nothing.
    let balances = "select account, balance from reports.balances where account in ('ALICE', 'BOB') order by 1";
    let balances = balances.replace("ALICE", &alice).replace("BOB", &funds.bob);
    let wanted = [format!("({alice},0)"), format!("({},25)", funds.bob)];
    assert_eq!(all.rows(&balances).await, wanted);
    let way = "select sum(balance)::bigint from reports.balances where account in ('external:to-low', 'external:from-high')";
    assert_eq!(all.number(way).await, 0);
    funds.split.verify().await;
}

/// A database of two partitions of a topic of four, each with a record, and its ledger.
struct Half {
    whole: Place,
    low: Place,
    ledger: Replica,
}

impl Half {
    async fn new(name: &str) -> Self {
        let whole = Place::new(name, 4).await;
        let low = half_of(&whole, 0).await;
        let publisher = whole.publisher().await;
        let one_each = (0..4).map(|partition| transfer(partition, &account(partition), "b", 1));
        publish(&publisher, &one_each.collect::<Vec<_>>()).await;
        let ledger = low.ledger(1).await;
        drained(&low, 0).await;
        ledger.becomes_ready().await;
        assert_eq!(ledger.partitions("active"), [0, 1]);
        Self { whole, low, ledger }
    }

    async fn posted(&self) -> i64 {
        let posted = "select count(*) from reports.transactions";
        self.low.number(posted).await
    }
}

/// An account whose debits are in this partition of four.
fn account(partition: u128) -> String {
    account_in(i32::try_from(partition).unwrap(), 4, "a")
}

#[tokio::test]
async fn a_database_that_has_not_read_the_topic_yet_tells_of_any_other_partition() {
    let whole = Place::new("unread", 4).await;
    let low = half_of(&whole, 0).await;
    let query = low.service("query").await;
    let ask = query
        .http
        .get("/v1/partitions?at_least=2147483647:0&wait_ms=0");
    assert_eq!(ask.await.expect(400).json()["code"], "partition_not_served");
}

#[tokio::test]
async fn whoever_asks_a_database_for_a_partition_of_another_is_told() {
    let half = Half::new("served").await;
    let query = half.low.service("query").await;
    let get = async |path: &str, status: u16| query.http.get(path).await.expect(status).json();
    let partitions = get("/v1/partitions?at_least=1:0", 200).await;
    let numbers = partitions["partitions"].as_array().unwrap().iter();
    assert_eq!(numbers.map(|p| &p["partition"]).collect::<Vec<_>>(), [0, 1]);
    let problem = get("/v1/partitions?at_least=0:0,2:0", 400).await;
    assert_eq!(problem["code"], "partition_not_served");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("serves 0-1"), "{detail}");
    let nowhere = get("/v1/partitions?at_least=9:0&wait_ms=0", 504).await;
    assert_ne!(nowhere["code"], "partition_not_served", "{nowhere}");
    get("/v1/partitions?at_least=2147483647:0&wait_ms=0", 504).await;
    let fresh = get("/v1/freshness", 200).await;
    assert!(fresh["as_of"].is_string(), "{fresh}");
    assert_eq!(fresh["lag_records"], 0);
    let list = half.low.run(&["positions", "list"]).await.expect(0).out;
    assert!(list.contains("serves partitions 0-1"), "{list}");
    assert!(!list.contains("partition 2\t"), "{list}");
    let accept = ["positions", "accept", "--partition", "2", "--reason", "x"];
    let ended = half.low.run(&accept).await.expect(1);
    ended.names(&["partition 2 is in another database"]);
}

#[tokio::test]
async fn parked_records_of_a_split_ledger_are_resolved_where_they_are() {
    let half = Half::new("served-parked").await;
    let publisher = half.whole.publisher().await;
    let key = account(1);
    let record = RawRecord {
        key: Some(key.as_bytes()),
        payload: Some(b"?"),
        headers: &[],
        partition: Some(1),
    };
    publish_raw(&publisher, record).await;
    publish(&publisher, [&transfer(11, &key, "b", 1)]).await;
    drained(&half.low, 0).await;
    assert_eq!(half.posted().await, 2);
    // The second can be applied once the first is given up.
    for arguments in [
        &["discard", "--parked-for", "undecodable", "--reason", "x"][..],
        &["replay", "--all"],
    ] {
        let arguments = [&["parked"], arguments, &["--operator", "ann"]].concat();
        half.low.run(&arguments).await.expect(0);
    }
    assert_eq!(half.posted().await, 3);
    half.low.verify().await;
}

#[tokio::test]
async fn what_a_database_has_begun_it_serves_for_ever_and_more_is_begun_at_once() {
    let half = Half::new("served-changes").await;
    let serve =
        async |partitions: &str| half.low.run(&["migrate", "--partitions", partitions]).await;
    let refused = serve("1-3").await.expect(1);
    refused.names(&["has begun partitions 0, which 1-3 leaves out"]);
    let refused = serve("0-4").await.expect(1);
    refused.names(&["4 partitions, and no partition 4"]);
    let again = half.low.run(&["migrate"]).await.expect(0).out;
    assert!(again.contains("it serves partitions 0-1"), "{again}");
    // Without a restart.
    serve("0-2").await.expect(0);
    until("partition 2 is begun", async || {
        (half.ledger.partitions("active") == [0, 1, 2]).then_some(())
    })
    .await;
    serve("all").await.expect(0);
    half.low.drained().await;
    assert_eq!(half.posted().await, 4);
    half.low.verify().await;
    half.ledger.stop().await.expect(0);
}

#[tokio::test]
async fn two_databases_in_one_group_are_told_apart() {
    let split = Split::new("split-group", 4).await;
    let [low, high] = &split.halves;
    let ledger = low.ledger(1).await;
    ledger.becomes_ready().await;
    let publisher = split.whole.publisher().await;
    publish(&publisher, [&transfer(1, &account_in(0, 4, "a"), "b", 1)]).await;
    drained(low, 0).await;
    let mut command = high.ledger_command(&["--lanes", "1"]);
    command.env("MILLRACE_GROUP", low.group());
    let intruder = high.replica(command).await;
    let why = until("the other database's lane stands still", async || {
        let (_, detail) = intruder.readiness()?;
        let why = detail["problems"]
            .as_array()?
            .iter()
            .find_map(Value::as_str)?;
        why.contains("--group").then(|| why.to_owned())
    })
    .await;
    let database = "select database_id::text from millrace.log";
    let database = low.rows(database).await[0]
        .trim_matches(['(', ')'])
        .to_owned();
    assert!(why.contains(&database), "{why}");
    assert!(high.rows("select * from reports.batches").await.is_empty());
    // Once it has left, what the group had given to it is the first one's again.
    intruder.stop().await.expect(0);
    publish(&publisher, [&transfer(2, &account_in(1, 4, "a"), "b", 1)]).await;
    drained(low, 0).await;
    ledger.becomes_ready().await;
    let own = high.ledger(1).await;
    own.becomes_ready().await;
    for replica in [ledger, own] {
        replica.stop().await.expect(0);
    }
}

#[tokio::test]
async fn a_ledger_is_split_by_copying_the_rows_of_its_partitions() {
    const COUNT: u128 = 400;
    let whole = Place::new("splitting", 4).await;
    let publisher = whole.publisher().await;
    let load = |from: u128| -> Vec<_> {
        (from..from + COUNT)
            .map(|n| transfer(n, &format!("a-{}", n % 40), &format!("b-{}", n % 33), 5))
            .collect()
    };
    let before = load(0);
    publish(&publisher, &before).await;
    publish(&publisher, before.iter().take(50)).await;
    let held = RawRecord {
        key: Some(b"a-1"),
        payload: Some(b"?"),
        headers: &[],
        partition: Some(millrace_schemas::partition_of(b"a-1", 4)),
    };
    publish_raw(&publisher, held).await;
    publish(&publisher, [&transfer(5_000, "a-1", "a-2", 5)]).await;
    let old = whole.ledger(1).await;
    let project = whole.replica(whole.project_command()).await;
    whole.drained().await;
    whole.folded().await;
    whole.verify().await;
    old.stop().await.expect(0);
    project.stop().await.expect(0);

    let split = Split {
        halves: [half_of(&whole, 0).await, half_of(&whole, 1).await],
        whole,
    };
    for place in &split.halves {
        sql(place, "split.sql", &split.whole, "").await.expect(0);
        // A second time it is refused.
        let again = sql(place, "split.sql", &split.whole, "").await;
        again.expect(3).names(&["this database is not new"]);
        place.verify().await;
    }
    let all = federated(&split).await;
    assert_eq!(figures(&split.whole).await, figures(&all).await);
    let ids = "select count(distinct database_id) from (
            select database_id from millrace.log) l";
    assert_eq!(split.numbers(ids).await, [1, 1, 1]);

    // They go on where the old one stood: what it knew is known, what was parked still holds its key.
    let [low, high] = &split.halves;
    let ledgers = [low.ledger(1).await, high.ledger(1).await];
    publish(&publisher, &before).await;
    publish(&publisher, &load(1_000)).await;
    for (half, place) in split.halves.iter().enumerate() {
        drained(place, half).await;
        place.verify().await;
    }
    let duplicates = "select sum(duplicate)::bigint from reports.conservation";
    let open = "select count(*) from reports.parked where resolution is null";
    // Of a-1 everything is behind the record that nobody understands.
    let of_a1 = |transactions: &[millrace_schemas::Transaction<'_>]| {
        transactions
            .iter()
            .filter(|t| t.debit_account.as_str() == "a-1")
            .count()
    };
    let behind = of_a1(&before) + of_a1(&load(1_000));
    assert_eq!(all.number(open).await, i64::try_from(2 + behind).unwrap());
    let known = 50 + before.len() - of_a1(&before);
    assert_eq!(all.number(duplicates).await, i64::try_from(known).unwrap());
    for ledger in ledgers {
        ledger.stop().await.expect(0);
    }
}
