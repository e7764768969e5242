//! One run from its start to its verdict.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use millrace_benches::results::{append, say};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::faults::{Fault, Plan};
use crate::load::{Load, SharedJournal, locked};
use crate::options::Options;
use crate::oracle::{Judgement, judge};
use crate::positions::Positions;
use crate::record::{Conditions, FaultRecord, Line, Summary, table};
use crate::servers::connect;
use crate::strike::Striker;
use crate::transactions::Transactions;

/// How long the log may take to be applied to its end once the load has ended.
const CATCH_UP_TIMEOUT: Duration = Duration::from_mins(10);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(200);

/// How long a question to a broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a replica may take to leave at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Servers and replicas under load.
#[derive(Debug)]
pub struct Session {
    /// What is struck.
    pub cluster: Cluster,
    /// How it is seen to recover.
    pub positions: Positions,
    /// When the load started.
    pub start: Instant,
    /// Everything that failed so far.
    pub failures: Vec<String>,
    transactions: Transactions,
    journal: SharedJournal,
    stop: watch::Sender<bool>,
    load: JoinSet<anyhow::Result<()>>,
}

/// What a session came to.
#[derive(Debug)]
pub struct Outcome {
    /// What the oracle found.
    pub judgement: Judgement,
    /// Everything that failed, the oracle's findings included.
    pub failures: Vec<String>,
    /// How long transactions were published.
    pub load: Duration,
}

impl Session {
    /// Starts replicas and load, and waits until both are running.
    pub async fn start(options: &Options, session_timeout: Duration) -> anyhow::Result<Self> {
        let cluster = Cluster::create(options, session_timeout).await?;
        if options.replicas > cluster.slots.len() {
            bail!(
                "{} replicas need as many ways: infra/local/up.sh --ways",
                options.replicas
            );
        }
        for slot in &cluster.slots[..options.replicas] {
            slot.lock().await.start().await?;
        }
        let partitions = usize::try_from(options.partitions)?;
        cluster.balanced(partitions).await?;
        let transactions = Transactions {
            seed: options.seed,
            accounts: options.accounts,
        };
        let brokers = &cluster.servers.brokers;
        let load = Load::new(transactions, options.rate, brokers, &cluster.name);
        let journal = Arc::clone(&load.journal);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(load.run(stopped));
        Ok(Self {
            positions: Positions::follow(cluster.database.clone(), partitions),
            cluster,
            start: Instant::now(),
            failures: Vec::new(),
            transactions,
            journal,
            stop,
            load: tasks,
        })
    }

    /// What strikes here.
    pub fn striker(&self, session: Duration) -> Striker<'_> {
        Striker {
            cluster: &self.cluster,
            positions: &self.positions,
            session,
            hold: None,
            start: self.start,
        }
    }

    /// How many transactions are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        locked(&self.journal).acknowledged
    }

    /// Ends the load, waits until all of it is applied, stops the replicas and judges.
    pub async fn finish(mut self) -> anyhow::Result<Outcome> {
        self.stop.send_replace(true);
        while let Some(ended) = self.load.join_next().await {
            ended?.context("the load")?;
        }
        let load = self.start.elapsed();
        let ended = self.cluster.revive().await?;
        self.failures.extend(ended);
        let ends = self.ends().await?;
        if let Err(failure) = self.caught_up(&ends).await {
            self.failures.push(format!("{failure:#}"));
        }
        self.stop_replicas().await?;
        let mut connection = connect(&self.cluster.database).await?;
        let journal = std::mem::take(&mut *locked(&self.journal));
        let judgement = judge(&mut connection, self.transactions, &journal, &ends).await?;
        self.failures.extend(judgement.findings.iter().cloned());
        if !judgement.holds() {
            self.failures.push(judgement.line());
        }
        let broken: i64 =
            sqlx::query_scalar("select count(*) from reports.conservation where not holds")
                .fetch_one(&mut connection)
                .await?;
        if broken != 0 {
            self.failures
                .push(format!("conservation fails in {broken} partitions"));
        }
        let verified = self.cluster.run(&["verify"]).await?;
        if !verified.status.success() {
            self.failures.push(format!("verify: {}", told(&verified)));
        }
        Ok(Outcome {
            judgement,
            failures: self.failures,
            load,
        })
    }

    async fn caught_up(&self, ends: &[i64]) -> anyhow::Result<()> {
        let wanted: i64 = ends.iter().sum();
        let give_up = Instant::now() + CATCH_UP_TIMEOUT;
        while self.positions.applied() < wanted {
            if Instant::now() > give_up {
                let applied = self.positions.applied();
                bail!("{applied} of {wanted} offsets are applied, and no more");
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    async fn stop_replicas(&mut self) -> anyhow::Result<()> {
        for slot in &self.cluster.slots {
            let Some(replica) = slot.lock().await.replica.take() else {
                continue;
            };
            replica.signal(rustix::process::Signal::TERM)?;
            let name = replica.name.clone();
            match replica.end(STOP_TIMEOUT).await {
                Ok(status) if status.success() => {}
                Ok(status) => self.failures.push(format!("{name} stopped with {status}")),
                Err(error) => self.failures.push(format!("{name}: {error:#}")),
            }
        }
        Ok(())
    }

    /// The end of each partition's log.
    async fn ends(&self) -> anyhow::Result<Vec<i64>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.cluster.servers.brokers)
            .create()?;
        let topic = self.cluster.name.clone();
        let partitions = i32::try_from(self.positions.partitions())?;
        let ask = move || {
            let end = |partition| {
                let (_, end) = consumer.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)?;
                anyhow::Ok(end)
            };
            (0..partitions).map(end).collect()
        };
        tokio::task::spawn_blocking(ask).await?
    }
}

/// Runs faults under load for as long as the options say, and judges. Gives everything that failed.
pub async fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    let mut session = Session::start(options, options.session_timeout()).await?;
    let name = session.cluster.name.clone();
    say(&format!(
        "{} replicas, {:.0} tx/s, seed {}: run {name}",
        options.replicas, options.rate, options.seed
    ));
    let faults = strike_all(&mut session, options, &name).await?;
    say("the load ends; waiting until all of it is applied, then judging");
    let version: String = sqlx::query_scalar("select current_setting('server_version')")
        .fetch_one(&mut connect(&session.cluster.database).await?)
        .await?;
    let binary = told(&session.cluster.run(&["--version"]).await?);
    let conditions = Conditions::read(
        options,
        version,
        session.cluster.servers.broker_count(),
        binary,
    );
    let database = session.cluster.servers.database.clone();
    let outcome = session.finish().await?;
    let at = sqlx::query_scalar(
        "select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    )
    .fetch_one(&mut connect(&database).await?)
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let acknowledged = outcome.judgement.acknowledged as f64;
    let summary = Summary {
        at,
        load_s: outcome.load.as_secs_f64(),
        tx_per_s: acknowledged / outcome.load.as_secs_f64(),
        faults: faults.iter().filter(|fault| fault.is_made).count(),
        judgement: outcome.judgement,
        failures: outcome.failures,
        conditions,
    };
    keep(options.results.as_deref(), &name, &summary)?;
    tell(&faults, &summary);
    Ok(summary.failures)
}

fn tell(faults: &[FaultRecord], summary: &Summary) {
    for line in table(faults) {
        say(&line);
    }
    say(&format!(
        "{} faults in {:.0} s at {:.0} tx/s",
        summary.faults, summary.load_s, summary.tx_per_s
    ));
    say(&summary.judgement.line());
    for failure in &summary.failures {
        say(&format!("FAILED: {failure}"));
    }
}

async fn strike_all(
    session: &mut Session,
    options: &Options,
    name: &str,
) -> anyhow::Result<Vec<FaultRecord>> {
    let end = session.start + options.duration();
    let mean_pause = Duration::from_secs_f64(60.0 / options.faults_per_minute);
    let mut plan = Plan::new(options.seed, &options.kinds);
    let mut left = if options.each_once {
        options.kinds.len()
    } else {
        usize::MAX
    };
    let mut due = Instant::now();
    let mut records = Vec::new();
    while left > 0 {
        let faults = next_faults(&mut plan, left);
        left -= faults.len();
        // Not earlier than planned; later when the last one took longer.
        due += mean_pause.mul_f64(faults.iter().map(|fault| fault.pause).sum());
        sleep_until(due).await;
        if !options.each_once && Instant::now() >= end {
            break;
        }
        let ended = session.cluster.revive().await?;
        session.failures.extend(ended);
        for record in strike(&session.striker(options.session_timeout()), &faults).await {
            say(&format!("{}  {} tx", record.line(), session.acknowledged()));
            keep(options.results.as_deref(), name, &record)?;
            session.failures.extend(record.failure());
            records.push(record);
        }
    }
    Ok(records)
}

/// One fault, or two at once.
fn next_faults(plan: &mut Plan, left: usize) -> Vec<Fault> {
    let first = plan.next();
    let second = first.filter(|fault| fault.with_next && left > 1);
    let second = second.and_then(|_| plan.next());
    first.into_iter().chain(second).collect()
}

async fn strike(striker: &Striker<'_>, faults: &[Fault]) -> Vec<FaultRecord> {
    match faults {
        [first, second] => {
            let later = async {
                sleep(striker.session.mul_f64(second.pause / 2.0)).await;
                striker.strike(*second, true).await
            };
            let (first, second) = tokio::join!(striker.strike(*first, true), later);
            vec![first, second]
        }
        faults => {
            let mut records = Vec::new();
            for fault in faults {
                records.push(striker.strike(*fault, false).await);
            }
            records
        }
    }
}

/// Appends a line, where there is a file for it.
pub fn keep(file: Option<&Path>, run: &str, content: &impl Serialize) -> anyhow::Result<()> {
    match file {
        Some(file) => append(file, &Line { run, content }),
        None => Ok(()),
    }
}

/// What a tool said.
fn told(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}").trim().to_owned()
}
