//! `millrace dev`: everything in one process, on servers that are thrown away after it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::ExitCode;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use metrics_exporter_prometheus::PrometheusHandle;
use millrace_gateway::Gateway;
use millrace_generator::{IdVersion, Skew, Workload, run as publish};
use millrace_http::Limits;
use millrace_ledger::board::Board;
use millrace_ledger::group::{Group, Options as GroupOptions, SystemClock};
use millrace_ledger::kafka::settings::Settings as ConsumerSettings;
use millrace_ledger::pipeline::lane::{Clock as _, Guards};
use millrace_ledger::store::schema;
use millrace_publisher::{Publisher, Settings};
use millrace_query::{Options as QueryOptions, Query};
use millrace_readmodels::{Options as FoldOptions, Status};
use millrace_rules::Currency;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::{TOPIC, print};
use crate::commands::ledger::{GROUP, describe, watch_lanes};
use crate::commands::{gateway, query};
use crate::dev::broker::Broker;
use crate::dev::postgres::PrivatePostgres;
use crate::{admin, operator, shutdown, telemetry};

/// Who reads without being the superuser.
const ANALYST: &str = "analyst";

/// One member: the in-memory broker is slow at rebalancing several, and one lane outruns it.
const LANES: usize = 1;

/// Accounts of the sample load.
const SAMPLE_ACCOUNTS: u64 = 200;

/// How long the sample load runs: a year.
const SAMPLE_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Requests in hand may take this long after Ctrl-C.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Lanes finish their batch and leave the group.
const LANES_TIMEOUT: Duration = Duration::from_secs(2);

/// Flags of `millrace dev`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is kept: the broker is in memory, the database is private, and both are gone after Ctrl-C. \
Postgres is this machine's, or a private copy that is fetched once; MILLRACE_DEV_POSTGRES=system, =download \
or =/path/to/bin decides otherwise. Ports that are taken are replaced by free ones.

Examples:
  millrace                         (the same as: millrace dev)
  millrace dev --rate 500
  millrace dev --rate 0            (no sample load)"
)]
pub struct Flags {
    /// Transactions of sample load per second; 0 for none.
    #[arg(long, env = "MILLRACE_DEV_RATE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=5_000))]
    rate: u32,
    /// Partitions of the topic.
    #[arg(long, env = "MILLRACE_DEV_PARTITIONS", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=100))]
    partitions: i32,
}

/// Runs until asked to stop.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let metrics = telemetry::init_metrics()?;
    let mut asked = std::pin::pin!(shutdown::requested_once());
    print("millrace dev: everything in one process");
    let say = |line: &str| print(&format!("  {line}"));
    let mut postgres = tokio::select! {
        postgres = PrivatePostgres::start(&say) => postgres?,
        asked = &mut asked => return asked.map(|()| ExitCode::SUCCESS),
    };
    let outcome = match Services::start(&flags, &postgres, metrics).await {
        Err(failure) => Err(failure),
        Ok(services) => {
            services.introduce(&postgres, started);
            let outcome = tokio::select! {
                asked = &mut asked => asked,
                failure = watch_lanes(&services.group, &services.board) => Err(failure),
                failure = postgres.ended() => Err(failure),
            };
            services.stop().await;
            outcome
        }
    };
    postgres.stop().await?;
    outcome?;
    print("stopped; nothing is left");
    Ok(ExitCode::SUCCESS)
}

/// Everything that runs.
struct Services {
    stop: CancellationToken,
    gateway: Gateway,
    board: Arc<Board>,
    group: Group,
    query: Query,
    tasks: JoinSet<()>,
    /// Of the gateway's connection: it ends when this is dropped.
    connection: JoinSet<()>,
    places: Places,
    broker: Broker,
}

/// Where clients are served.
struct Places {
    gateway: SocketAddr,
    query: SocketAddr,
    admin: SocketAddr,
}

impl Services {
    async fn start(
        flags: &Flags,
        postgres: &PrivatePostgres,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let broker = Broker::start(TOPIC, flags.partitions)?;
        let database = database_of(postgres)?;
        prepare(&database).await?;
        let board = Arc::new(Board::default());
        let group = start_group(&broker, &database, &board)?;
        let settings = Settings::new(broker.addresses(), TOPIC);
        let (gateway, connection) = Gateway::start(millrace_gateway::Options {
            publisher: settings.clone(),
            limits: millrace_gateway::Limits::default(),
        })
        .await?;
        let query = Query::new(QueryOptions {
            database: database.clone(),
            connections_max: 10,
        });

        let stop = CancellationToken::new();
        let limits = Limits {
            drain_timeout: DRAIN_TIMEOUT,
            ..Limits::default()
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(admin::keep_up(metrics.clone(), stop.clone()));
        let mut serve = async |port, router| -> anyhow::Result<SocketAddr> {
            let listener = bind(port).await?;
            let address = listener.local_addr()?;
            tasks.spawn(millrace_http::serve(listener, router, limits, stop.clone()));
            Ok(address)
        };
        let places = Places {
            gateway: serve(gateway::PORT, millrace_gateway::router(gateway.clone())).await?,
            query: serve(query::PORT, query.router()).await?,
            admin: serve(
                gateway::ADMIN_PORT,
                admin::router(metrics, readiness(&board, &gateway)).merge(operator::router(
                    database.clone(),
                    Ipv4Addr::LOCALHOST.into(),
                )),
            )
            .await?,
        };
        tasks.spawn(broker.tell_positions(TOPIC, database.clone(), stop.clone())?);
        let (status, _) = watch::channel(Status::default());
        let folds = FoldOptions {
            database,
            workers: NonZeroUsize::MIN,
        };
        tasks.spawn(millrace_readmodels::run(folds, status, stop.clone()));
        if let Some(rate) = NonZeroU32::new(flags.rate) {
            let publisher = Publisher::connect(&settings).await?;
            tasks.spawn(sample(publisher, rate, stop.clone()));
        }
        Ok(Self {
            stop,
            gateway,
            board,
            group,
            query,
            tasks,
            connection,
            places,
            broker,
        })
    }

    /// Says where everything is, in lines that can be pasted.
    fn introduce(&self, postgres: &PrivatePostgres, started: Instant) {
        let Places {
            gateway,
            query,
            admin,
        } = self.places;
        let seconds = started.elapsed().as_secs_f64();
        let analyst = postgres.url().replace("postgres@", &format!("{ANALYST}@"));
        let psql = match postgres.psql() {
            Some(psql) => format!(
                "{} '{analyst}' -c 'select * from reports.balances limit 5'",
                psql.display()
            ),
            None => format!("(no psql on this machine; any client can read {analyst})"),
        };
        print(&format!(
            r#"
Millrace is up after {seconds:.1} s. The console:

  http://{query}/

Post a transaction, see the account, read a report:

  curl -sS http://{gateway}/v1/transactions -H 'content-type: application/json' -H 'idempotency-key: coffee-1' -d '{{"kind":"card","debit_account":"alice","credit_account":"cafe","amount":450,"currency":"EUR","occurred_at":"2026-01-31T12:00:00Z","source":"readme"}}'
  curl -sS http://{query}/v1/accounts/alice
  curl -sS 'http://{query}/v1/reports/daily_totals?format=csv&limit=5'

Or with SQL:

  {psql}

For `millrace import`, `generate`, `verify` and `accounts` in another terminal:

  export MILLRACE_BROKERS={brokers} DATABASE_URL={url}

The broker is in memory and the database is private: all of it is gone after Ctrl-C.
Metrics and health: http://{admin}/metrics, /livez, /readyz. API documents: /openapi.json of both."#,
            brokers = self.broker.addresses(),
            url = postgres.url(),
        ));
    }

    /// Clients first, then what they rest on. Bounded: what hangs ends with the process.
    async fn stop(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.gateway.drain()).await;
        // The servers take the drain timeout themselves: cut off at the same moment they would leave clients of
        // the database behind, which tell of its end.
        let _ = tokio::time::timeout(2 * DRAIN_TIMEOUT, self.tasks.join_all()).await;
        drop((self.gateway, self.connection));
        let lanes = tokio::task::spawn_blocking(move || self.group.stop());
        if tokio::time::timeout(LANES_TIMEOUT, lanes).await.is_err() {
            tracing::warn!("the lanes have not ended in time");
        }
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.query.close()).await;
    }
}

/// The private server as its superuser, whatever the environment says of other servers.
fn database_of(postgres: &PrivatePostgres) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(&postgres.url())?;
    Ok(options.ssl_mode(PgSslMode::Disable))
}

/// Migrates, and makes a user for people who read.
async fn prepare(database: &PgConnectOptions) -> anyhow::Result<()> {
    let mut connection = database.connect().await?;
    schema::migrate(&mut connection).await?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create role {ANALYST} login in role millrace_reader"
    )))
    .execute(&mut connection)
    .await?;
    connection.close().await?;
    Ok(())
}

fn start_group(
    broker: &Broker,
    database: &PgConnectOptions,
    board: &Board,
) -> anyhow::Result<Group> {
    let options = GroupOptions {
        kafka: ConsumerSettings {
            brokers: broker.addresses().into(),
            topic: TOPIC.into(),
            group: GROUP.into(),
            // The broker answers a fetch with nothing only after this: until then it is deaf.
            properties: vec![("fetch.wait.max.ms".into(), "10".into())],
        },
        postgres: database.clone(),
        lanes: LANES,
        replica: "dev".into(),
        guards: Guards::default(),
    };
    Ok(Group::start(&options, board)?)
}

/// The usual port, or else a free one, which is said.
async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
        return Ok(listener);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .context("binding a free port of 127.0.0.1")?;
    let free = listener.local_addr()?.port();
    print(&format!("  port {port} is taken: {free} stands in for it"));
    Ok(listener)
}

fn readiness(board: &Arc<Board>, gateway: &Gateway) -> admin::Readiness {
    let (board, gateway) = (Arc::clone(board), gateway.clone());
    admin::known(move || {
        let picture = board.picture();
        let (accepts, detail) = gateway.readiness();
        let ready = picture.is_ready() && accepts;
        (
            ready,
            json!({"ready": ready, "ledger": describe(&picture), "gateway": detail}),
        )
    })
}

/// A trickle of transactions until the stop.
async fn sample(publisher: Publisher, rate: NonZeroU32, stop: CancellationToken) {
    let workload = Workload {
        count: u64::from(rate.get()) * SAMPLE_SECONDS,
        rate: Some(rate.get().into()),
        accounts: SAMPLE_ACCOUNTS,
        skew: Skew::Zipf(0.8),
        seed: 1,
        id_version: IdVersion::V7,
        currency: Currency::parse("EUR").expect("EUR is a currency"),
        external_share: 0.4,
        start_micros: SystemClock::default().wall_micros(),
    };
    if let Err(error) = publish(&publisher, &workload, |_| {}, stop.cancelled()).await {
        tracing::warn!(%error, "the sample load has ended");
    }
}
