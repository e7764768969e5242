//! A Postgres of its own for `millrace dev`, thrown away after it.
//!
//! | module | holds |
//! |---|---|
//! | [`binaries`] | finding `initdb` and `postgres`, or fetching them |
//! | [`home`] | directories, and what killed runs left |
//! | [`process`] | starting and ending processes |
//! | [`user`] | whom the server runs as if this is root |

mod binaries;
mod home;
mod process;
mod user;

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use binaries::{Binaries, Choice};
use home::Home;
use process::{POLL, Process};
use user::User;

/// Where people and their tools expect Postgres.
const USUAL_PORT: u16 = 5432;

/// A port that was free may be taken before the server has it; each attempt tries another one.
const PORT_ATTEMPTS_MAX: u32 = 5;

const INITDB_TIMEOUT: Duration = Duration::from_mins(1);
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a running server is looked at.
const WATCH: Duration = Duration::from_millis(500);

/// Of a log, in an error.
const LOG_LINES_MAX: usize = 15;

/// A socket's path has at most 107 bytes, on some systems 103.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// How the server runs, besides its addresses. It is for one run: a crash of the machine may lose it.
const SETTINGS: [&str; 9] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=on",
    "shared_buffers=128MB",
    "max_connections=100",
    "wal_level=minimal",
    "max_wal_senders=0",
    // Shared memory in files of the data directory: nothing stays elsewhere after a kill.
    "dynamic_shared_memory_type=mmap",
    "logging_collector=off",
];

/// A running server with an empty database `millrace`. Dropping it kills the server and removes its
/// files; [`Self::stop`] does so in order.
#[derive(Debug)]
pub struct PrivatePostgres {
    // Dropped in this order: the files go after the server.
    server: Process,
    home: Home,
    binaries: Binaries,
    port: u16,
}

impl PrivatePostgres {
    /// Cleans up after killed runs, finds or fetches Postgres, and starts it; `say` gets a line for
    /// what takes time or is worth knowing.
    pub async fn start(say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let choice = Choice::of_environment()?;
        Self::start_in(home::base()?, choice, say).await
    }

    /// For the superuser, who needs no password.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/millrace", self.port)
    }

    /// A `psql` that runs: on `PATH`, or of the server.
    pub fn psql(&self) -> Option<PathBuf> {
        self.binaries.psql()
    }

    /// Waits until the server has ended by itself, and says how.
    pub async fn ended(&mut self) -> anyhow::Error {
        loop {
            match self.server.ended() {
                Ok(None) => tokio::time::sleep(WATCH).await,
                Ok(Some(status)) => {
                    let log = self.home.place().join("log");
                    return anyhow::anyhow!(
                        "the private Postgres has ended ({status}), and with it everything that was in it:\n{}",
                        last_lines(&log)
                    );
                }
                Err(error) => return error,
            }
        }
    }

    /// Ends sessions and server, and removes every file.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self {
            server, mut home, ..
        } = self;
        server.stop(STOP_TIMEOUT).await?;
        home.remove()
    }

    async fn start_in(
        base: PathBuf,
        choice: Choice,
        say: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        let user = User::of_server()?;
        let (home, notes) = tokio::task::spawn_blocking(move || Home::create(&base, user))
            .await
            .context("making the private Postgres's directory was ended")??;
        for note in &notes {
            say(note);
        }
        let binaries = Binaries::obtain(choice, &home, user, say).await?;
        say(&format!("starting {}", binaries.source));
        initdb(&binaries, &home, user).await?;
        let (server, port) = serve(&binaries, &home, user).await?;
        if port != USUAL_PORT {
            say(&format!(
                "port {USUAL_PORT} is taken: {port} stands in for it"
            ));
        }
        let postgres = Self {
            server,
            home,
            binaries,
            port,
        };
        create_database(port).await?;
        Ok(postgres)
    }
}

async fn initdb(binaries: &Binaries, home: &Home, user: Option<User>) -> anyhow::Result<()> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), home.data().into()];
    let rest = "--auth=trust -U postgres -E UTF8 --locale=C --no-sync";
    arguments.extend(rest.split(' ').map(OsString::from));
    let log = home.place().join("initdb.log");
    let mut process = Process::spawn(&binaries.initdb(), arguments, user, &log)?;
    match process.wait(INITDB_TIMEOUT).await? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("initdb failed ({status}):\n{}", last_lines(&log)),
        None => bail!(
            "initdb did not end in {} s:\n{}",
            INITDB_TIMEOUT.as_secs(),
            last_lines(&log)
        ),
    }
}

/// Starts the server on the usual port, or else on a free one.
async fn serve(
    binaries: &Binaries,
    home: &Home,
    user: Option<User>,
) -> anyhow::Result<(Process, u16)> {
    let log = home.place().join("log");
    let mut port = free_port(USUAL_PORT).or_else(|_| free_port(0))?;
    for _ in 0..PORT_ATTEMPTS_MAX {
        let arguments = server_arguments(&home.data(), port);
        let mut server = Process::spawn(&binaries.postgres(), arguments, user, &log)?;
        match wait_ready(&mut server, &home.data(), &log).await? {
            Started::Ready => return Ok((server, port)),
            Started::PortTaken => port = free_port(0)?,
        }
    }
    bail!(
        "others took each of {PORT_ATTEMPTS_MAX} free ports before Postgres could:\n{}",
        last_lines(&log)
    )
}

/// How a start ends, if not in an error.
enum Started {
    Ready,
    PortTaken,
}

/// The server itself says in its `postmaster.pid` when it takes connections: whoever else may listen on
/// the port is not mistaken for it.
async fn wait_ready(server: &mut Process, data: &Path, log: &Path) -> anyhow::Result<Started> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = server.ended()? {
            let text = last_lines(log);
            if text.contains("Address already in use") {
                return Ok(Started::PortTaken);
            }
            bail!("Postgres did not start ({status}):\n{text}");
        }
        let state = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if is_ready(&state, server.id()) {
            return Ok(Started::Ready);
        }
        if Instant::now() >= deadline {
            bail!(
                "Postgres takes no connections after {} s:\n{}",
                START_TIMEOUT.as_secs(),
                last_lines(log)
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Reads `postmaster.pid`, whose format is in Postgres's `utils/pidfile.h`.
fn is_ready(state: &str, server_pid: u32) -> bool {
    let mut lines = state.lines();
    let pid = lines.next().and_then(|line| line.trim().parse().ok());
    let status = lines.nth(6).unwrap_or_default();
    pid == Some(server_pid) && status.trim() == "ready"
}

fn server_arguments(data: &Path, port: u16) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), data.into()];
    let mut set = |setting: OsString| arguments.extend(["-c".into(), setting]);
    for setting in SETTINGS {
        set(setting.into());
    }
    set("listen_addresses=127.0.0.1".into());
    set(format!("port={port}").into());
    let mut socket_directory = OsString::from("unix_socket_directories=");
    if fits_socket(data) {
        socket_directory.push(data);
    }
    set(socket_directory);
    arguments
}

/// The setting is a list, in which some characters would need quotes.
fn fits_socket(directory: &Path) -> bool {
    let longest = directory.join(".s.PGSQL.65535").as_os_str().len();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    longest <= SOCKET_PATH_BYTES_MAX
        && directory
            .to_str()
            .is_some_and(|text| text.chars().all(plain))
}

/// The port if it is free, or any free one for 0.
fn free_port(port: u16) -> anyhow::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .with_context(|| format!("finding a free port on 127.0.0.1 (tried {port})"))
}

async fn create_database(port: u16) -> anyhow::Result<()> {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("postgres")
        .database("postgres")
        .ssl_mode(PgSslMode::Disable);
    let create = async {
        let mut connection = options.connect().await?;
        sqlx::query("create database millrace")
            .execute(&mut connection)
            .await?;
        connection.close().await
    };
    tokio::time::timeout(START_TIMEOUT, create)
        .await
        .with_context(|| format!("no answer in {} s", START_TIMEOUT.as_secs()))
        .and_then(|result| result.map_err(anyhow::Error::new))
        .with_context(|| format!("creating a database in the private Postgres on port {port}"))
}

fn last_lines(log: &Path) -> String {
    let text = match std::fs::read(log) {
        Ok(text) => text,
        Err(error) => return format!("(its log {} cannot be read: {error})", log.display()),
    };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests;
