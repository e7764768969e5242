//! `millrace` as a process: tools that end, replicas that serve.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Everything that a test waits for comes sooner than this, on two busy cores too.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at a condition.
const GLANCE: Duration = Duration::from_millis(50);

/// How long the admin port may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a log is shown with a failed test.
const LOG_LINES_SHOWN: usize = 40;

/// Looks until there is something, and fails the test when there is nothing for too long.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// Like [`until`], with another patience.
pub async fn until_within<T>(
    patience: Duration,
    what: &str,
    look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let found = look_for(patience, look).await;
    found.unwrap_or_else(|| panic!("waited {} s in vain: {what}", patience.as_secs()))
}

/// Looks until there is something; none when there is nothing for too long.
pub async fn look_for<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= give_up {
            return None;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; none after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ended {
    /// Fails the test unless the exit status is this one.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Fails the test unless both are in the standard error: what is wrong, and its place.
    pub fn names(&self, words: &[&str]) {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:?}");
        }
    }
}

/// A running process whose output goes to files.
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts it; `dir` takes its output.
    pub fn start(mut command: Command, dir: &Path, name: &str) -> Self {
        let (out, err) = (
            dir.join(format!("{name}.out")),
            dir.join(format!("{name}.err")),
        );
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Self { child, out, err }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// What it has printed.
    pub fn out(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success(), "kill -s {name}");
    }

    /// Waits for its end.
    pub async fn end(self) -> Ended {
        self.end_within(PATIENCE).await
    }

    /// Like [`Self::end`], with another patience.
    pub async fn end_within(mut self, patience: Duration) -> Ended {
        let status: ExitStatus = until_within(patience, "the process ends", async || {
            self.child.try_wait().unwrap()
        })
        .await;
        Ended {
            code: status.code(),
            out: self.out(),
            err: self.log(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended, which is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            show(&self.err);
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows what its processes said last"
)]
fn show(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    eprintln!("--- {}\n{}", log.display(), shown.join("\n"));
}

/// A service with an admin port.
pub struct Replica {
    process: Process,
    admin: SocketAddr,
}

impl Replica {
    /// Starts it and waits until its admin port is known.
    pub async fn start(command: Command, dir: &Path, name: &str) -> Self {
        let mut process = Process::start(command, dir, name);
        let admin = until("the admin port is printed", async || {
            let log = process.log();
            assert!(process.is_running(), "the replica ended: {log}");
            let (_, rest) = log.split_once("admin port: http://")?;
            let (address, _) = rest.split_once('/')?;
            Some(address.parse().unwrap())
        })
        .await;
        Self { process, admin }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// SIGTERM, and its end.
    pub async fn stop(self) -> Ended {
        self.process.signal("TERM");
        self.process.end().await
    }

    /// Waits for its end, which it finds itself.
    pub async fn ends(self) -> Ended {
        self.process.end().await
    }

    /// Status and body of a page of the admin port; none where nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ))
    }

    /// Status and body of the admin port's answer; none where nobody answers.
    pub fn send(&self, request: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, ANSWER_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        write!(stream, "{request}").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Whether `/readyz` says yes, and its detail.
    pub fn readiness(&self) -> Option<(bool, Value)> {
        let (status, body) = self.get("/readyz")?;
        assert!(matches!(status, 200 | 503), "{status} {body}");
        let detail: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(detail["ready"], status == 200, "{detail}");
        Some((status == 200, detail))
    }

    /// The partitions that it owns and that are in `state`.
    pub fn partitions(&self, state: &str) -> Vec<i64> {
        let Some((_, detail)) = self.readiness() else {
            return Vec::new();
        };
        let partitions = detail["partitions"].as_array().unwrap();
        partitions
            .iter()
            .filter(|partition| partition["state"] == state)
            .map(|partition| partition["partition"].as_i64().unwrap())
            .collect()
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").unwrap();
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .map(|line| {
                let (_, value) = line.rsplit_once(' ').unwrap();
                value.parse::<f64>().unwrap()
            })
            .sum()
    }

    /// Waits until it is ready.
    pub async fn becomes_ready(&self) {
        until("the replica is ready", async || {
            self.readiness().filter(|(ready, _)| *ready)
        })
        .await;
    }

    /// Waits until it is not ready; gives the detail.
    pub async fn becomes_unready(&self) -> Value {
        let (_, detail) = until("the replica is not ready", async || {
            self.readiness().filter(|(ready, _)| !ready)
        })
        .await;
        detail
    }
}
