//! Flags and environment. Everything is checked before anything is opened or bound.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::str::FromStr as _;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use millrace_ledger::store::schema;
use millrace_publisher::Publisher;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;

use crate::commands::{
    accounts, checkpoint, dev, export, gateway, generate, import, ledger, migrate, parked,
    positions, project, query, sim, topics, verify,
};

/// Exit status of wrong usage, as in BSD's sysexits.h.
const EX_USAGE: u8 = 64;

/// The topic where none is set.
pub const TOPIC: &str = "transactions.submitted";

/// What a flag for a time takes.
const DURATION_MIN: Duration = Duration::from_millis(1);
const DURATION_MAX: Duration = Duration::from_hours(24);

/// Environment variables with this prefix are librdkafka properties.
const KAFKA_PREFIX: &str = "MILLRACE_KAFKA_";

/// Event-driven transaction processing: from Kafka into Postgres, exactly once.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
#[command(after_help = "Examples:
  millrace dev
  millrace migrate && millrace topics create --partitions 12
  millrace ledger &
  millrace project &
  millrace import bank.csv.gz --map bank.toml
  psql \"$DATABASE_URL\" -c 'select * from reports.balances limit 10'
  millrace verify

Any librdkafka property can be set by environment: MILLRACE_KAFKA_SECURITY_PROTOCOL=SASL_SSL \
sets security.protocol.")]
pub struct Cli {
    /// How log lines look.
    #[arg(
        long,
        global = true,
        env = "MILLRACE_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// Which log lines are written, as in `RUST_LOG`: info, debug, `millrace_ledger=debug,info` [default: info;
    /// of dev: warn; of sim: its own].
    #[arg(long, global = true, env = "MILLRACE_LOG", value_parser = log_filter)]
    log: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// Reads the command line. Without a command it is `dev`.
    pub fn read() -> Result<Self, clap::Error> {
        let cli = Self::try_parse()?;
        if cli.command.is_some() {
            return Ok(cli);
        }
        Self::try_parse_from(std::env::args_os().chain([OsString::from("dev")]))
    }

    /// Which log lines are written.
    pub fn log(&self) -> &str {
        // What dev prints is for a person, who reads of trouble only.
        let default = match self.command {
            None | Some(Command::Dev(_)) => "warn",
            // What the simulated lanes say is of no trouble of anybody's.
            Some(Command::Sim(_)) => "off,millrace::commands=info",
            _ => "info",
        };
        self.log.as_deref().unwrap_or(default)
    }

    /// What to do.
    pub fn into_command(self) -> Command {
        self.command.expect("the command line was read with one")
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, on an in-memory broker and a private Postgres (the default).
    Dev(dev::Flags),
    /// Serve the HTTP API that takes transactions.
    Gateway(gateway::Flags),
    /// Create or upgrade the database.
    Migrate(migrate::Flags),
    /// Create the topic, or check that it is as it must be.
    #[command(subcommand)]
    Topics(topics::Topics),
    /// Run the ledger group: validate, persist and project transactions.
    Ledger(ledger::Flags),
    /// Run the background workers that bring read models up to date.
    Project(project::Flags),
    /// Serve the query API and the console.
    Query(query::Flags),
    /// Publish a file of transactions: CSV with a mapping, NDJSON or Avro.
    Import(import::Flags),
    /// Publish synthetic transactions.
    Generate(generate::Flags),
    /// Set or show what accounts may do.
    #[command(subcommand)]
    Accounts(accounts::Accounts),
    /// List, show, replay or discard records that wait for an operator.
    #[command(subcommand)]
    Parked(parked::Parked),
    /// Show where partitions stand, or accept that log and database do not fit.
    #[command(subcommand)]
    Positions(positions::Positions),
    /// Simulate the ledger group under faults, from a seed.
    Sim(sim::Flags),
    /// Prove that nothing was lost, counted twice or changed.
    Verify(verify::Flags),
    /// Write the whole ledger to a file, in the order of its hash chains.
    Export(export::Flags),
    /// Mark where the hash chains are, sign it, and check later that nothing before it has changed.
    #[command(subcommand)]
    Checkpoint(checkpoint::Checkpoints),
}

/// Where Kafka is.
#[derive(Debug, Clone, Args)]
pub struct Kafka {
    /// Kafka brokers, host:port, comma-separated.
    #[arg(long, env = "MILLRACE_BROKERS", default_value = "127.0.0.1:9092", value_parser = brokers)]
    pub brokers: String,
    /// The topic that transactions are submitted to.
    #[arg(long, env = "MILLRACE_TOPIC", default_value = TOPIC, value_parser = topic)]
    pub topic: String,
}

impl Kafka {
    /// The librdkafka properties of the environment.
    pub fn properties() -> Result<Vec<(String, String)>, Usage> {
        let mut properties = Vec::new();
        for (variable, value) in std::env::vars_os() {
            let Some(name) = variable
                .to_str()
                .and_then(|name| name.strip_prefix(KAFKA_PREFIX))
            else {
                continue;
            };
            let name = name.to_ascii_lowercase().replace('_', ".");
            let value = value
                .into_string()
                .map_err(|_| Usage(format!("{} is not UTF-8", variable.display())))?;
            properties.push((name, value));
        }
        Ok(properties)
    }

    /// A client for questions and orders to the cluster.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Usage> {
        let mut config = ClientConfig::new();
        for (name, value) in Self::properties()? {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.create().map_err(|error| {
            let refused = millrace_ledger::kafka::consumer::refused(&error);
            Usage(format!("Kafka settings: {refused}"))
        })
    }

    /// Connects to the topic for publishing.
    pub async fn publisher(&self) -> anyhow::Result<Publisher> {
        let settings = millrace_publisher::Settings {
            properties: Self::properties()?,
            ..millrace_publisher::Settings::new(&self.brokers, &self.topic)
        };
        Publisher::connect(&settings).await.map_err(|error| {
            if let millrace_publisher::Error::Settings(why) = error {
                return Usage(format!("Kafka settings: {why}")).into();
            }
            anyhow::Error::new(error).context("connecting to Kafka")
        })
    }
}

/// A database that does not answer by then is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection.
pub async fn connect(options: &PgConnectOptions) -> Result<sqlx::PgConnection, sqlx::Error> {
    use sqlx::ConnectOptions as _;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
    connected.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// Where Postgres is.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// Postgres connection URL.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = database_url)]
    pub database_url: PgConnectOptions,
}

impl Database {
    /// One connection for a tool.
    pub async fn connect(&self) -> anyhow::Result<sqlx::PgConnection> {
        use anyhow::Context as _;
        let options = self.database_url.clone().application_name("millrace");
        let (host, port) = (options.get_host().to_owned(), options.get_port());
        let connected = connect(&options).await;
        connected.with_context(|| format!("connecting to Postgres at {host}:{port}"))
    }

    /// The same to a database of this version.
    pub async fn connect_migrated(&self) -> anyhow::Result<sqlx::PgConnection> {
        use anyhow::Context as _;
        let mut connection = self.connect().await?;
        match schema::check(&mut connection).await {
            Err(error) if error.is_forbidden() => {
                Err(error).context(
                    "this login may not read the schema millrace: take one of role millrace_writer, or a \
                     member of pg_read_all_data to verify, export and mark",
                )
            }
            checked => {
                checked?;
                Ok(connection)
            }
        }
    }
}

/// Who acts, for what is kept of it.
#[derive(Debug, Clone, Args)]
pub struct Operator {
    /// Who does this; kept for ever [default: the user's name].
    #[arg(long, env = "MILLRACE_OPERATOR", value_parser = reason)]
    operator: Option<String>,
}

impl Operator {
    /// The name.
    pub fn name(&self) -> String {
        let user = |name| std::env::var(name).ok().filter(|name| !name.is_empty());
        let named = self.operator.clone().or_else(|| user("USER"));
        named
            .or_else(|| user("LOGNAME"))
            .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
    }
}

/// Where `/metrics`, `/livez` and `/readyz` are.
#[derive(Debug, Clone, Args)]
pub struct Admin {
    /// Where metrics and health are served; port 0 picks a free one.
    #[arg(long, env = "MILLRACE_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Allow ports on addresses beyond loopback, where nothing yet guards them.
    #[arg(long, env = "MILLRACE_INSECURE_BIND")]
    insecure_bind: bool,
}

impl Admin {
    /// The address, unless it is open to others and that was not said to be meant.
    pub fn address(&self, default_port: u16) -> Result<SocketAddr, Usage> {
        let flag = "--admin-listen (MILLRACE_ADMIN_LISTEN)";
        self.guard(flag, self.admin_listen, default_port)
    }

    fn guard(
        &self,
        flag: &str,
        address: Option<SocketAddr>,
        default_port: u16,
    ) -> Result<SocketAddr, Usage> {
        let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], default_port)));
        if address.ip().is_loopback() || self.insecure_bind {
            return Ok(address);
        }
        Err(Usage(format!(
            "{flag} {address} is beyond loopback and has no access control; say --insecure-bind if the \
             network guards it"
        )))
    }
}

/// Where a service listens for its clients.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    /// Where clients are served; port 0 picks a free one.
    #[arg(long, env = "MILLRACE_LISTEN")]
    listen: Option<SocketAddr>,
}

impl Listen {
    /// The address, on the same terms as the admin port's.
    pub fn address(&self, default_port: u16, admin: &Admin) -> Result<SocketAddr, Usage> {
        admin.guard("--listen (MILLRACE_LISTEN)", self.listen, default_port)
    }
}

/// Binds an address; the error names the flag that gives another one.
pub async fn bind(address: SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    use anyhow::Context as _;
    TcpListener::bind(address).await.with_context(|| {
        format!("binding {what}{address} (another {flag} helps; its port 0 picks a free one)")
    })
}

/// A wrong flag or environment value, found after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Ends after a parse error: help and version are no errors; all others exit 64.
pub fn refuse(mut error: clap::Error) -> ExitCode {
    let of_database = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(argument)) if argument.starts_with("--database-url")
    );
    if of_database && error.get(ContextKind::InvalidValue).is_some() {
        // There is a password in it.
        let hidden = ContextValue::String("(not shown)".into());
        error.insert(ContextKind::InvalidValue, hidden);
    }
    let error = &error;
    let _ = error.print();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return ExitCode::SUCCESS;
    }
    if let Some(variable) = variable_of(error) {
        eprint(&format!(
            "the value comes from the environment variable {}",
            variable.display()
        ));
    }
    ExitCode::from(EX_USAGE)
}

/// Ends after a failure: wrong usage exits 64, everything else 1.
pub fn fail(failure: &anyhow::Error) -> ExitCode {
    eprint(&format!("error: {}", chain_of(failure)));
    let is_usage = failure
        .chain()
        .any(<dyn std::error::Error + 'static>::is::<Usage>);
    if is_usage {
        ExitCode::from(EX_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// The failure and its causes, each said once: many libraries repeat their cause in their own text.
fn chain_of(failure: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in failure.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    for cause in failure.chain() {
        if let Some(sqlx::Error::Database(error)) = cause.downcast_ref() {
            // With the line of the server's source.
            text = text.replace(&error.to_string(), error.message());
        }
    }
    text
}

/// Writes a line about a failure for the person at the terminal.
pub fn eprint(line: &str) {
    // When nobody can be told, the exit status still says it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a line of a tool's result.
pub fn print(line: &str) {
    print_raw(format!("{line}\n").as_bytes());
}

/// Writes a tool's result as it is. Whoever has stopped reading (`| head`) does not need the rest; a result
/// that cannot be written is none, and ends the process.
pub fn print_raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprint(&format!("error: writing the result: {error}"));
            std::process::exit(1);
        }
        _ => {}
    }
}

/// Text that may do nothing to a terminal: neither controls, line ends among them, nor marks that turn the
/// writing around.
pub fn printable(text: &str) -> String {
    let escaped = |character: char| match character {
        '"' | '\'' | '\\' => character.into(),
        _ => character.escape_debug().collect::<String>(),
    };
    text.chars().map(escaped).collect()
}

/// The environment variable that an invalid value came from, if it was not given as a flag.
fn variable_of(error: &clap::Error) -> Option<OsString> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = argument
        .split([' ', '='])
        .next()?
        .trim_start_matches('-')
        .to_owned();
    let given = format!("--{flag}");
    let is_given = |argument: OsString| {
        let text = argument.to_string_lossy();
        text == given || text.starts_with(&format!("{given}="))
    };
    if std::env::args_os().any(is_given) {
        return None;
    }
    let command = Cli::command();
    let mut commands = vec![&command];
    while let Some(command) = commands.pop() {
        let named = command
            .get_arguments()
            .find(|a| a.get_long() == Some(&flag));
        if let Some(variable) = named.and_then(clap::Arg::get_env) {
            return std::env::var_os(variable).map(|_| variable.to_owned());
        }
        commands.extend(command.get_subcommands());
    }
    None
}

/// A count of things that must be there.
pub fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "a whole number of at least 1".into())
}

/// A time as people write it: 20s, 500ms, 1m 30s. At least a millisecond, at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| (DURATION_MIN..=DURATION_MAX).contains(duration))
        .ok_or_else(|| "a time from 1ms to 24h, such as 20s or 1m 30s".into())
}

/// A text that says something and that the database can keep.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_text = !text.is_empty() && text.len() <= 1_000 && !text.contains('\0');
    is_text
        .then(|| text.to_owned())
        .ok_or_else(|| "1 to 1,000 bytes of text".into())
}

/// A list of host:port.
pub fn brokers(text: &str) -> Result<String, String> {
    let valid = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    match text.split(',').find(|broker| !valid(broker.trim())) {
        None => Ok(text.to_owned()),
        Some(broker) => Err(format!("{broker:?} is not host:port")),
    }
}

fn topic(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_name = (1..=249).contains(&text.len()) && text.chars().all(legal);
    if is_name && !matches!(text, "." | "..") {
        Ok(text.to_owned())
    } else {
        Err("a topic has 1 to 249 of A-Z a-z 0-9 . _ - and is not . or ..".into())
    }
}

pub fn database_url(text: &str) -> Result<PgConnectOptions, String> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err("it begins with postgres://".into());
    }
    PgConnectOptions::from_str(text).map_err(|error| error.to_string())
}

fn log_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_values_are_refused() {
        for bad in [
            &["millrace", "ledger", "--brokers", "nowhere"][..],
            &["millrace", "ledger", "--topic", "a b"],
            &["millrace", "ledger", "--lanes", "0"],
            &["millrace", "ledger", "--drain-timeout", "20"],
            &["millrace", "ledger", "--park-brake-percent", "0"],
            &["millrace", "ledger", "--database-url", "mysql://x"],
            &["millrace", "ledger", "--admin-listen", "9465"],
            &["millrace", "ledger", "--log", "millrace=loud"],
            &["millrace", "nothing"],
        ] {
            assert!(Cli::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_as_people_write_them() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "20", "-5s", "0s", "2 days", "25h", "soon"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bind_beyond_loopback_must_be_meant() {
        let admin = |address: &str, insecure_bind| Admin {
            admin_listen: Some(address.parse().unwrap()),
            insecure_bind,
        };
        assert!(admin("0.0.0.0:1", false).address(1).is_err());
        assert!(admin("0.0.0.0:1", true).address(1).is_ok());
        assert!(admin("127.0.0.1:1", false).address(1).is_ok());
        assert!(admin("[::1]:1", false).address(1).is_ok());
    }
}
