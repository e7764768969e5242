//! Processes of Postgres: started apart from the terminal, and ended for certain.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::user::User;

/// How often a process is looked at while something is waited for.
pub const POLL: Duration = Duration::from_millis(5);

/// An immediate shutdown takes a few hundredths of a second; after this SIGKILL.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a process may take to vanish after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// A child that does not outlive this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program of Postgres, its output into `log`.
    pub fn spawn(
        program: &Path,
        arguments: Vec<OsString>,
        user: Option<User>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let errors = out.try_clone().context("sharing the log file")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .current_dir("/")
            // Ctrl-C in the terminal is for us: the services still need the server to finish.
            .process_group(0)
            // Messages in English: one of them is looked for.
            .env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            // PGDATA, PGPORT and so on are about another server.
            if name.as_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The status, if it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("waiting for a child process")
    }

    /// Waits until it has ended; none if it still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.ended()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends it in order, or else by force.
    pub async fn stop(mut self, limit: Duration) -> anyhow::Result<()> {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT); // it may have ended
        if self.wait(limit).await?.is_none() {
            tracing::warn!(?limit, "Postgres did not stop in time: it is killed");
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let mut ended = || !matches!(self.child.try_wait(), Ok(None));
        if ended() {
            return;
        }
        // First the signal at which the server frees its shared memory.
        let _ = kill_process(pid, Signal::QUIT);
        if !wait_until(QUIT_TIMEOUT, ended) {
            kill_tree(pid);
            let _ = self.child.wait();
        }
    }
}

/// Ends the server of a data directory that somebody else started and left; blocks for seconds at most.
pub fn end_server_of(data: &Path) -> anyhow::Result<()> {
    let Some(pid) = server_pid(data) else {
        return Ok(());
    };
    let gone = || !serves(pid, data);
    if gone() {
        return Ok(());
    }
    let number = pid.as_raw_pid();
    kill_process(pid, Signal::QUIT).with_context(|| {
        format!(
            "ending process {number}, the Postgres of {}",
            data.display()
        )
    })?;
    if wait_until(QUIT_TIMEOUT, gone) {
        return Ok(());
    }
    kill_tree(pid);
    if !wait_until(KILL_TIMEOUT, gone) {
        bail!(
            "process {number}, the Postgres of {}, cannot be killed",
            data.display()
        );
    }
    Ok(())
}

/// Blocks until `done`; false after `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "only for destructors and blocking threads, which cannot await; bounded"
        )]
        std::thread::sleep(POLL);
    }
    true
}

fn server_pid(data: &Path) -> Option<Pid> {
    let file = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Pid::from_raw(file.lines().next()?.trim().parse().ok()?)
}

/// Whether a process is the server of a data directory: ids are used again, and a dead process that
/// nobody waited for has no command line.
pub fn serves(pid: Pid, data: &Path) -> bool {
    let data = data.as_os_str().as_bytes();
    let number = pid.as_raw_pid();
    if Path::new("/proc/self/cmdline").exists() {
        return std::fs::read(format!("/proc/{number}/cmdline"))
            .is_ok_and(|line| line.split(|&byte| byte == 0).any(|word| word == data));
    }
    let shown = Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &number.to_string()])
        .output();
    shown.is_ok_and(|shown| {
        let mut words = shown.stdout.windows(data.len());
        words.any(|word| word == data)
    })
}

/// SIGKILL for a process, its group and its children: those of a server are in groups of their own.
fn kill_tree(pid: Pid) {
    let children = children_of(pid);
    let _ = kill_process_group(pid, Signal::KILL);
    let _ = kill_process(pid, Signal::KILL);
    for child in children {
        let _ = kill_process(child, Signal::KILL);
    }
}

/// None where there is no `/proc`; a server's children also end by themselves when it is gone.
fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_child = |name: &OsStr| {
        let id = name.to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        (parent_in_stat(&stat)? == parent.as_raw_pid()).then(|| Pid::from_raw(id))?
    };
    processes
        .flatten()
        .filter_map(|entry| is_child(&entry.file_name()))
        .collect()
}

/// The fourth field of `/proc/PID/stat` (`proc_pid_stat(5)`); the second may hold spaces and brackets.
fn parent_in_stat(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_past_an_odd_name() {
        assert_eq!(parent_in_stat("12 (a) b (c) S 34 12 12 0"), Some(34));
        for odd in ["", "12", "12 (a)", "12 (a) S", "12 (a) S x"] {
            assert_eq!(parent_in_stat(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_dropped_process_is_gone_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        // It ignores SIGQUIT, so that it takes SIGKILL.
        let script = "trap '' QUIT; sleep 60 & echo $!; wait";
        let log = directory.path().join("log");
        let arguments = vec!["-c".into(), script.into()];
        let process = Process::spawn(Path::new("/bin/sh"), arguments, None, &log).unwrap();
        let pid = Pid::from_child(&process.child);
        let mut child = None;
        assert!(wait_until(Duration::from_secs(10), || {
            child = children_of(pid).first().copied();
            child.is_some() && std::fs::read_to_string(&log).is_ok_and(|line| !line.is_empty())
        }));
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
        let child = child.unwrap().as_raw_pid();
        assert!(wait_until(Duration::from_secs(10), || {
            // Empty: dead, and not yet waited for by process 1.
            std::fs::read(format!("/proc/{child}/cmdline")).map_or(true, |line| line.is_empty())
        }));
    }

    #[test]
    fn a_process_that_only_has_the_number_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let pid = std::process::id().to_string();
        std::fs::write(data.path().join("postmaster.pid"), pid).unwrap();
        end_server_of(data.path()).unwrap();
    }
}
