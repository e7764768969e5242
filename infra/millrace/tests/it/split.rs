//! A ledger over several databases, each with partitions of its own of one topic: it is the same ledger, except for
//! what crosses from one database to another, and that is shown too.

use std::process::Command;

use millrace_publisher::RawRecord;

use crate::log;
use crate::oracle::{acknowledged, assert_balances_of_topic};
use crate::place::Place;
use crate::process::{Ended, Replica, until};
use crate::records::{publish, publish_raw, transfer};
use crate::servers::repository;

/// 2026-01-02T03:04:05Z, in microseconds: a load that begins then is the same one however often it is sent.
const START: &str = "1767323045000000";

/// A ledger over two databases with half of the topic's partitions each, beside one that has all of them.
pub struct Split {
    pub whole: Place,
    pub halves: [Place; 2],
}

impl Split {
    pub async fn new(name: &str, partitions: i32) -> Self {
        let whole = Place::new(name, partitions).await;
        Self {
            halves: [half_of(&whole, 0).await, half_of(&whole, 1).await],
            whole,
        }
    }

    pub fn places(&self) -> [&Place; 3] {
        [&self.whole, &self.halves[0], &self.halves[1]]
    }

    /// Starts a ledger for each database: of all partitions, the lower and the upper half.
    pub async fn ledgers(&self, lanes: u32) -> [Replica; 3] {
        let [whole, low, high] = self.places().map(|place| place.ledger(lanes));
        [whole.await, low.await, high.await]
    }

    /// Waits until all have applied what is theirs.
    pub async fn drained(&self) {
        self.whole.drained().await;
        for (half, place) in self.halves.iter().enumerate() {
            drained(place, half).await;
        }
    }

    pub async fn verify(&self) {
        self.whole.verify().await;
        for place in &self.halves {
            place.verify().await;
        }
    }

    /// Runs a statement that gives a number in each: all, low, high.
    pub async fn numbers(&self, query: &str) -> [i64; 3] {
        let [whole, low, high] = self.places().map(|place| place.number(query));
        [whole.await, low.await, high.await]
    }
}

/// A database of the lower (0) or upper (1) half of the partitions.
pub async fn half_of(whole: &Place, half: i32) -> Place {
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
pub async fn drained(place: &Place, half: usize) {
    let ends = log::ends(place.brokers(), place.topic(), place.partitions).await;
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
pub async fn federated(split: &Split) -> Place {
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
