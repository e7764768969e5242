//! A replica of the ledger as a process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long a replica may take to bind its admin port.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(10);

/// How long the admin port may take to answer: it does so within milliseconds, unless it is frozen.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A running replica; killed when it is dropped.
#[derive(Debug)]
pub struct Replica {
    child: Child,
    log: PathBuf,
    admin: SocketAddr,
    /// Its connections' application name begins with `millrace ledger` and this.
    pub name: String,
}

impl Replica {
    /// Starts it and waits for its admin port.
    pub async fn start(mut command: Command, name: String, log: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let child = command
            .env("MILLRACE_REPLICA", &name)
            .env("MILLRACE_ADMIN_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let mut replica = Self {
            child,
            log,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            name,
        };
        replica.admin = timeout(START_TIMEOUT, replica.admin_port())
            .await
            .with_context(|| format!("{} binds no admin port", replica.name))??;
        Ok(replica)
    }

    async fn admin_port(&mut self) -> anyhow::Result<SocketAddr> {
        loop {
            let log = fs::read_to_string(&self.log)?;
            let address = log
                .split_once("admin port: http://")
                .and_then(|(_, rest)| rest.split_once('/'))
                .and_then(|(address, _)| address.parse().ok());
            if let Some(address) = address {
                return Ok(address);
            }
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status}: {log}", self.name);
            }
            sleep(GLANCE).await;
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// `kill -9`; it is gone afterwards.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its exit status, when it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub async fn end(mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let ends = async {
            loop {
                if let Some(status) = self.ended()? {
                    return Ok(status);
                }
                sleep(GLANCE).await;
            }
        };
        timeout(patience, ends)
            .await
            .context("a replica does not end")?
    }

    /// The partitions that it owns, as it says itself.
    pub async fn partitions(&self) -> anyhow::Result<Vec<usize>> {
        let answer = timeout(ANSWER_TIMEOUT, self.get("/readyz")).await??;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .context("no body in /readyz")?;
        let detail: Value = serde_json::from_str(body)?;
        let partitions = detail["partitions"].as_array();
        let numbers = partitions.into_iter().flatten();
        Ok(numbers
            .filter_map(|partition| partition["partition"].as_u64()?.try_into().ok())
            .collect())
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
