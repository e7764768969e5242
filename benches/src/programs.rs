//! Running `millrace` as a tool and as a service.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long a service may take to finish its batch and leave.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a service may take until it says where it listens.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How often it is asked whether a service has started, or ended.
const POLL: Duration = Duration::from_millis(20);

/// The binary, and where what it says is kept.
#[derive(Debug)]
pub struct Millrace {
    binary: PathBuf,
    logs: PathBuf,
}

/// A running service; killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Millrace {
    /// The given binary, or the one beside this program. Logs go beside this program's directory.
    pub fn find(binary: Option<&Path>) -> anyhow::Result<Self> {
        let this = std::env::current_exe()?;
        let beside = this.with_file_name("millrace");
        let binary = binary.unwrap_or(&beside);
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("{}: build it first", binary.display()))?;
        let home = this.parent().and_then(Path::parent);
        let logs = home.unwrap_or(Path::new(".")).join("bench-logs");
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        Ok(Self { binary, logs })
    }

    /// Whether this build has the command in earnest.
    pub fn version(&self) -> anyhow::Result<String> {
        let output = Command::new(&self.binary).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs a tool to its end; a failure shows what it said. It is killed when nobody waits for it any more.
    pub async fn run(
        &self,
        arguments: &[String],
        environment: &[(&'static str, String)],
    ) -> anyhow::Result<()> {
        let log = self.logs.join(format!("{}.log", arguments[0]));
        let mut command =
            tokio::process::Command::from(self.command(arguments, environment, &log)?);
        let status = command.kill_on_drop(true).status().await?;
        if status.success() {
            return Ok(());
        }
        bail!("millrace {}: {}", arguments.join(" "), ended(status, &log))
    }

    /// Starts a service.
    pub fn start(
        &self,
        name: &str,
        arguments: &[String],
        environment: &[(&'static str, String)],
    ) -> anyhow::Result<Service> {
        let log = self.logs.join(format!("{name}.log"));
        let child = self.command(arguments, environment, &log)?.spawn()?;
        Ok(Service { child, log })
    }

    fn command(
        &self,
        arguments: &[String],
        environment: &[(&'static str, String)],
        log: &Path,
    ) -> anyhow::Result<Command> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file);
        Ok(command)
    }
}

impl Service {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("a service has ended: {}", ended(status, &self.log)),
        }
    }

    /// What follows a text in its log, up to the next blank, once it is there.
    pub async fn said(&mut self, text: &str) -> anyhow::Result<String> {
        let mut waited = Duration::ZERO;
        while waited < START_TIMEOUT {
            self.check()?;
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(word) = word_after(&log, text) {
                return Ok(word.to_owned());
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        bail!(
            "a service does not say {text:?}; its log is {}",
            self.log.display()
        )
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status()?;
        if !asked.success() {
            self.check()?;
        }
        let mut waited = Duration::ZERO;
        while waited < STOP_TIMEOUT {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("a service stopped badly: {}", ended(status, &self.log)),
                None => tokio::time::sleep(POLL).await,
            }
            waited += POLL;
        }
        bail!("a service does not stop; its log is {}", self.log.display())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rest of a word, which must have ended: the line may be half written.
fn word_after<'a>(log: &'a str, text: &str) -> Option<&'a str> {
    let (_, rest) = log.split_once(text)?;
    let end = rest.find(char::is_whitespace)?;
    rest.get(..end)
}

/// The status and the last lines of the log.
fn ended(status: ExitStatus, log: &Path) -> String {
    const LINES: usize = 10;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
    format!("{status}; {} ends with\n{tail}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_once_it_has_ended() {
        let log = "info query: http://127.0.0.1:8081/ now";
        assert_eq!(word_after(log, "http://"), Some("127.0.0.1:8081/"));
        assert_eq!(word_after("query: http://127.0.0.1:80", "http://"), None);
        assert_eq!(word_after(log, "gateway"), None);
    }
}
