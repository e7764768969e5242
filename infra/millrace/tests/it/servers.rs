//! Where the servers are; servers that a test may take down.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Kafka and Postgres are.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// A superuser's URL of a database that tests do not use.
    pub database_url: String,
}

impl Addresses {
    /// The servers that all tests share.
    pub fn shared() -> Self {
        Self {
            brokers: required("MILLRACE_BROKERS"),
            database_url: required("DATABASE_URL"),
        }
    }
}

fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: start servers with infra/local/up.sh and load the env file that it names"
        )
    })
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// A Python with the packages of `infra/test/requirements.txt`.
pub fn python() -> Command {
    let interpreter = std::env::var("MILLRACE_TEST_PYTHON").expect(
        "MILLRACE_TEST_PYTHON is not set: make a virtual environment with the packages of \
         infra/test/requirements.txt and name its interpreter",
    );
    Command::new(interpreter)
}

/// Sends a signal to a process.
pub fn signal(pid: &str, name: &str) {
    let ended = Command::new("kill")
        .args(["-s", name, pid])
        .status()
        .unwrap();
    assert!(ended.success(), "kill -s {name} {pid}");
}

/// A Kafka and a Postgres of one test's own; they end with it, whatever happens.
pub struct OwnServers {
    dir: PathBuf,
    pub addresses: Addresses,
}

impl OwnServers {
    /// Starts them.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same with further flags of `up.sh`.
    pub fn start_with(name: &str, flags: &[&str]) -> Self {
        let parent = std::env::var("MILLRACE_TEST_DIR")
            .map_or_else(|_| repository().join("target/local-it"), PathBuf::from);
        let dir = parent.join(name);
        let mut own = Self {
            addresses: Addresses {
                brokers: String::new(),
                database_url: String::new(),
            },
            dir,
        };
        own.script("up.sh", flags);
        let env = std::fs::read_to_string(own.dir.join("env")).unwrap();
        let value = |name: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix('='))
                .unwrap_or_else(|| panic!("no {name} in {env:?}"))
                .to_owned()
        };
        own.addresses = Addresses {
            brokers: value("MILLRACE_BROKERS"),
            database_url: value("DATABASE_URL"),
        };
        own
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `stop`, `start` or `kill`.
    pub fn kafka(&self, action: &str) {
        self.script("kafka.sh", &[action]);
    }

    /// Sends a signal (`STOP`, `CONT`) to the only broker.
    pub fn signal_kafka(&self, name: &str) {
        let pid = std::fs::read_to_string(self.dir.join("kafka-1/pid")).unwrap();
        signal(pid.trim(), name);
    }

    /// `stop`, `start` or `kill`.
    pub fn postgres(&self, action: &str) {
        self.script("postgres.sh", &[action]);
    }

    fn script(&self, name: &str, arguments: &[&str]) {
        let ended = self.command(name, arguments).output().unwrap();
        assert!(ended.status.success(), "{name} {arguments:?}: {ended:?}");
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(repository().join("infra/local").join(name));
        command.args(arguments).arg("--dir").arg(&self.dir);
        command
    }
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        // Whoever reads a failure wants the test's own, not one of cleaning up.
        let _ = self.command("down.sh", &[]).output();
    }
}
