//! A topic, a group and a database for one test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millrace_publisher::{Publisher, Settings};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::http::Service;
use crate::log;
use crate::process::{Ended, Process, Replica, until};
use crate::servers::Addresses;

/// How soon a killed replica's partitions are given to others, in milliseconds.
const SESSION_TIMEOUT_MS: u32 = 1500;

/// A topic, a group and a database.
pub struct Place {
    addresses: Addresses,
    /// Of the database and the group.
    name: String,
    topic: String,
    /// How many partitions the topic was created with.
    pub partitions: i32,
    dir: TempDir,
    started: std::cell::Cell<u32>,
}

impl Place {
    /// A migrated database and a new topic on the shared servers.
    pub async fn new(name: &str, partitions: i32) -> Self {
        Self::on(Addresses::shared(), name, partitions).await
    }

    /// The same on other servers.
    pub async fn on(addresses: Addresses, name: &str, partitions: i32) -> Self {
        let place = Self::bare(addresses, name, partitions).await;
        place.run(&["migrate"]).await.expect(0);
        let count = partitions.to_string();
        place
            .run(&["topics", "create", "--partitions", &count])
            .await
            .expect(0);
        place
    }

    /// An empty database and no topic yet.
    pub async fn bare(addresses: Addresses, name: &str, partitions: i32) -> Self {
        let name = format!("it-{name}-{}", Uuid::new_v4().simple());
        Self::of(addresses, name.clone(), name, partitions).await
    }

    /// The same topic with an empty database and a group of their own.
    pub async fn beside(&self, name: &str) -> Self {
        let (name, topic) = (format!("{}-{name}", self.name), self.topic.clone());
        Self::of(self.addresses.clone(), name, topic, self.partitions).await
    }

    async fn of(addresses: Addresses, name: String, topic: String, partitions: i32) -> Self {
        let place = Self {
            name,
            topic,
            addresses,
            partitions,
            dir: tempfile::tempdir().unwrap(),
            started: std::cell::Cell::new(0),
        };
        place.create_database().await;
        place
    }

    /// Creates the database.
    pub async fn create_database(&self) {
        self.execute_at_server(&format!("create database \"{}\"", self.name))
            .await;
    }

    /// Runs a statement outside of the test's database.
    pub async fn execute_at_server(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.addresses.database_url)
            .await
            .unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// A directory of the test's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The consumer group's name.
    pub fn group(&self) -> &str {
        &self.name
    }

    /// Where the brokers are.
    pub fn brokers(&self) -> &str {
        &self.addresses.brokers
    }

    /// The URL of the database.
    pub fn database_url(&self) -> String {
        let (server, _) = self.addresses.database_url.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    /// A connection as the superuser.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.database_url()).await.unwrap()
    }

    /// Runs statements as the superuser.
    pub async fn execute(&self, statements: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// The number that a query gives.
    pub async fn number(&self, query: &str) -> i64 {
        let mut connection = self.connect().await;
        sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// The rows of a query, each as text.
    pub async fn rows(&self, query: &str) -> Vec<String> {
        let mut connection = self.connect().await;
        let query = format!("select q::text from ({query}) q");
        sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await
            .unwrap()
    }

    /// `millrace` with these arguments and this place in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = millrace();
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("DATABASE_URL", self.database_url())
            .env("MILLRACE_BROKERS", self.brokers())
            .env("MILLRACE_TOPIC", self.topic());
        command
    }

    /// Starts a tool.
    pub fn start(&self, arguments: &[&str]) -> Process {
        self.start_command(self.command(arguments), arguments[0])
    }

    /// Starts any command; `name` is for its output.
    pub fn start_command(&self, command: Command, name: &str) -> Process {
        Process::start(command, self.dir.path(), &self.next_name(name))
    }

    /// Runs a tool to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end().await
    }

    /// `millrace ledger` with this place in its environment.
    pub fn ledger_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["ledger"]);
        command
            .args(arguments)
            .env("MILLRACE_GROUP", &self.name)
            .env("MILLRACE_ADMIN_LISTEN", "127.0.0.1:0")
            .env(
                "MILLRACE_KAFKA_SESSION_TIMEOUT_MS",
                SESSION_TIMEOUT_MS.to_string(),
            )
            .env("MILLRACE_KAFKA_HEARTBEAT_INTERVAL_MS", "300");
        command
    }

    /// Starts a replica of the ledger with this many lanes.
    pub async fn ledger(&self, lanes: u32) -> Replica {
        let command = self.ledger_command(&["--lanes", &lanes.to_string()]);
        self.replica(command).await
    }

    /// `millrace project` with this place in its environment.
    pub fn project_command(&self) -> Command {
        let mut command = self.command(&["project"]);
        command.env("MILLRACE_ADMIN_LISTEN", "127.0.0.1:0");
        command
    }

    /// `millrace gateway` or `query` with this place in its environment, on free ports.
    pub fn service_command(&self, name: &str) -> Command {
        let mut command = self.command(&[name]);
        command
            .env("MILLRACE_LISTEN", "127.0.0.1:0")
            .env("MILLRACE_ADMIN_LISTEN", "127.0.0.1:0");
        command
    }

    /// Starts a replica of the gateway or of the query API and waits until it is ready.
    pub async fn service(&self, name: &str) -> Service {
        let replica = self.replica(self.service_command(name)).await;
        let service = Service::of(replica, name).await;
        service.replica.becomes_ready().await;
        service
    }

    /// Waits until every read model holds everything that is stored.
    pub async fn folded(&self) {
        until("the read models are up to date", async || {
            let lag =
                "select coalesce(sum(lag_seqs), -1)::bigint from reports.read_model_freshness";
            (self.number(lag).await == 0).then_some(())
        })
        .await;
    }

    /// Starts a replica of any service.
    pub async fn replica(&self, command: Command) -> Replica {
        let name = self.next_name("replica");
        Replica::start(command, self.dir.path(), &name).await
    }

    /// Publishes to the topic.
    pub async fn publisher(&self) -> Publisher {
        Publisher::connect(&Settings::new(self.brokers(), self.topic()))
            .await
            .unwrap()
    }

    /// Kafka's own administration client.
    pub fn kafka_admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", self.brokers())
            .create()
            .unwrap()
    }

    /// Waits until the database has applied the topic to its end.
    pub async fn drained(&self) {
        let ends = log::ends(self.brokers(), self.topic(), self.partitions).await;
        let wanted: i64 = ends.iter().sum();
        self.applied(wanted).await;
    }

    /// Waits until the positions add up to this.
    pub async fn applied(&self, offsets: i64) {
        let mut connection = self.connect().await;
        until(&format!("{offsets} offsets are applied"), async || {
            let query = "select coalesce(sum(position), 0)::bigint from millrace.positions";
            let applied: i64 = sqlx::query_scalar(query)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert!(applied <= offsets, "{applied} of {offsets} offsets");
            (applied == offsets).then_some(())
        })
        .await;
    }

    /// `millrace verify` must find that everything holds.
    pub async fn verify(&self) {
        let ended = self.run(&["verify"]).await.expect(0);
        assert!(ended.out.contains("everything holds"), "{ended:?}");
    }

    /// The same of the tables alone, and that the log does not fit them.
    pub async fn verify_without_log(&self) {
        self.run(&["verify", "--no-log"]).await.expect(0);
        let ended = self.run(&["verify"]).await.expect(1);
        assert!(ended.out.contains("FAILED log: "), "{ended:?}");
    }

    /// Sleeps for a part of a test's own scenario: nothing is correct because of it.
    pub async fn let_run(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn next_name(&self, what: &str) -> String {
        self.started.set(self.started.get() + 1);
        format!("{:02}-{what}", self.started.get())
    }
}

/// `millrace` without anything of the caller's environment.
pub fn millrace() -> Command {
    program(env!("CARGO_BIN_EXE_millrace").as_ref())
}

/// The same of a program elsewhere.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        let is_ours = name.to_string_lossy().starts_with("MILLRACE_");
        if is_ours || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command
}
