//! `millrace dev`: what it prints works, and nothing is left of it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::berka;
use crate::http::{Http, JSON, TRANSACTIONS};
use crate::place::program;
use crate::process::{Ended, Process, until};
use crate::records::{id, json, transfer};

/// How soon it ends after Ctrl-C.
const END: Duration = Duration::from_secs(5);

/// Where gateway, query API, admin port and Postgres are when nobody else is there.
const USUAL_PORTS: [u16; 4] = [8080, 8081, 9464, 5432];

/// Every dev mode wants the usual ports: one at a time, so that a test knows who has them.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A program outside of the build directory, so that it keeps its files in a cache of its own.
pub struct Installed {
    dir: TempDir,
    program: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Installed {
    pub async fn new() -> Self {
        let alone = ALONE.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("millrace");
        let built = env!("CARGO_BIN_EXE_millrace");
        // A copy where the temporary directory is on another file system.
        std::fs::hard_link(built, &program)
            .or_else(|_| std::fs::copy(built, &program).map(drop))
            .unwrap();
        Self {
            dir,
            program,
            _alone: alone,
        }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Starts it and waits until it has introduced itself.
    pub async fn start(&self, name: &str, arguments: &[&str]) -> Dev {
        let mut command = program(&self.program);
        command.args(arguments).env("XDG_CACHE_HOME", self.cache());
        let mut process = Process::start(command, self.dir.path(), name);
        let text = until("dev introduces itself", async || {
            let text = process.out();
            assert!(process.is_running(), "it ended: {text}{}", process.log());
            text.contains("Metrics and health").then_some(text)
        })
        .await;
        let run = self
            .cache()
            .join(format!("millrace/dev/run-{}", process.pid()));
        Dev {
            descendants: descendants(process.pid()),
            places: places(&run),
            process,
            text,
        }
    }

    /// Every file of the cache.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.cache()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files
    }
}

/// A running `millrace dev`.
pub struct Dev {
    process: Process,
    /// What it printed at the start.
    text: String,
    /// Its Postgres, and that one's children.
    descendants: Vec<u32>,
    /// The directories of this run.
    places: Vec<PathBuf>,
}

impl Dev {
    /// The lines that are to be pasted and hold this.
    fn lines(&self, part: &str) -> Vec<&str> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("  "));
        lines.filter(|line| line.contains(part)).collect()
    }

    /// The address in the line that holds this.
    pub fn http(&self, path: &str) -> Http {
        let line = self.lines(path)[0];
        let (_, rest) = line.split_once("http://").unwrap();
        Http::at(rest[..rest.find('/').unwrap()].parse().unwrap())
    }

    /// What it exports for other commands.
    fn exported(&self, name: &str) -> String {
        let words = self.lines("export ")[0].split(' ');
        let mut value = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.next_back().unwrap().to_owned()
    }

    async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.exported("DATABASE_URL"))
            .await
            .unwrap()
    }

    /// Ctrl-C. Nothing may be left.
    pub async fn interrupt(self, installed: &Installed) {
        self.process.signal("INT");
        let asked = Instant::now();
        let ended = self.ends(installed, 0).await;
        assert!(asked.elapsed() < END, "it took {:?}", asked.elapsed());
        assert!(ended.out.contains("stopped; nothing is left"), "{ended:?}");
        assert_eq!(ended.err, "", "nothing to warn of");
    }

    /// Waits for its end. Nothing may be left.
    async fn ends(self, installed: &Installed, code: i32) -> Ended {
        let ended = self.process.end().await.expect(code);
        assert_gone(&self.descendants, &self.places);
        assert_eq!(installed.files(), [] as [PathBuf; 0]);
        ended
    }
}

fn assert_gone(processes: &[u32], directories: &[PathBuf]) {
    assert!(!processes.is_empty() && !directories.is_empty());
    let alive: Vec<_> = processes
        .iter()
        .copied()
        .filter(|id| is_alive(*id))
        .collect();
    assert_eq!(alive, [0; 0], "of {processes:?}");
    let left: Vec<_> = directories.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Its directory, and the one that it names where the server's user cannot enter that.
fn places(run: &Path) -> Vec<PathBuf> {
    assert!(run.join("lock").exists(), "{}", run.display());
    let named = std::fs::read_to_string(run.join("place")).ok();
    named
        .map(PathBuf::from)
        .into_iter()
        .chain([run.to_owned()])
        .collect()
}

/// State and parent of a process, from `/proc/PID/stat`.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// A zombie only waits for its parent.
fn is_alive(id: u32) -> bool {
    state_and_parent(id).is_some_and(|(state, _)| state != 'Z')
}

fn descendants(ancestor: u32) -> Vec<u32> {
    let names = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children: Vec<u32> = ids
        .filter(|id| state_and_parent(*id).is_some_and(|(_, parent)| parent == ancestor))
        .collect();
    let further = children.iter().flat_map(|child| descendants(*child));
    further.chain(children.iter().copied()).collect()
}

/// Runs a line as a person who pasted it.
fn paste(line: &str) -> Output {
    let ended = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(ended.status.success(), "{line}: {ended:?}");
    assert!(ended.stderr.is_empty(), "{line}: {ended:?}");
    ended
}

/// Runs a line with curl; gives status and body.
fn curl(line: &str) -> (u16, String) {
    let ended = paste(&format!("{line} -w '\\n%{{http_code}}'"));
    let text = String::from_utf8(ended.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn what_dev_prints_works_and_nothing_is_left_of_it() {
    let installed = Installed::new().await;
    // Where this fails somebody else has the port, which is as well: no other dev mode, which would soon be gone.
    let taken = USUAL_PORTS.map(|port| TcpListener::bind(("127.0.0.1", port)));
    let dev = installed.start("dev", &[]).await;
    for port in USUAL_PORTS {
        assert!(
            !dev.text.contains(&format!("127.0.0.1:{port}")),
            "{}",
            dev.text
        );
    }
    for port in USUAL_PORTS {
        assert!(
            dev.text.contains(&format!("port {port} is taken")),
            "{}",
            dev.text
        );
    }
    drop(taken);

    let [post, account, report] = dev.lines("curl ")[..] else {
        panic!("three lines with curl in {}", dev.text)
    };
    let (status, first) = curl(post);
    assert_eq!(status, 202, "{first}");
    let receipt: serde_json::Value = serde_json::from_str(&first).unwrap();
    let path = format!(
        "{TRANSACTIONS}/{}?at_least={}:{}&wait_ms=10000",
        receipt["id"].as_str().unwrap(),
        receipt["partition"],
        receipt["offset"]
    );
    let found = dev.http("/v1/accounts").get(&path).await.expect(200).json();
    assert_eq!(
        (&found["verdict"], &found["amount"]),
        (&"posted".into(), &450.into())
    );
    let (status, again) = curl(post);
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(
        (status, &again["id"]),
        (202, &receipt["id"]),
        "a retry is the same transaction"
    );
    let (status, body) = curl(account);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["balances"][0]["balance"]),
        (200, &(-450).into()),
        "{body}"
    );
    let (status, csv) = curl(report);
    assert_eq!(status, 200, "{csv}");
    assert!(csv.starts_with("day,") && csv.lines().count() >= 2, "{csv}");
    let table = String::from_utf8(paste(dev.lines("psql")[0]).stdout).unwrap();
    assert!(
        table.contains("account") && table.contains("rows)"),
        "{table}"
    );

    import(&dev, &installed).await;
    dev.interrupt(&installed).await;
}

/// The bank's file, as in `berka.rs`, beside the sample load.
async fn import(dev: &Dev, installed: &Installed) {
    let run = async |name: &str, arguments: &[String]| {
        let mut command = program(&installed.program);
        command.args(arguments).current_dir(installed.dir.path());
        for variable in ["MILLRACE_BROKERS", "DATABASE_URL"] {
            command.env(variable, dev.exported(variable));
        }
        Process::start(command, installed.dir.path(), name)
            .end()
            .await
    };
    run("import", &berka::import_arguments()).await.expect(2);
    let mut database = dev.database().await;
    until("the file is posted", async || {
        let query = "select count(*) from reports.transactions where currency = 'CZK'";
        let posted: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut database)
            .await
            .unwrap();
        (posted == berka::ROWS).then_some(())
    })
    .await;
    berka::assert_sums(&mut database).await;
    database.close().await.unwrap();
    run("verify", &["verify".into()]).await.expect(0);
}

#[tokio::test]
async fn what_a_killed_dev_left_is_removed_by_the_next() {
    let installed = Installed::new().await;
    let mut killed = installed.start("killed", &["dev", "--rate", "0"]).await;
    let http = killed.http(TRANSACTIONS);
    let body = json(&transfer(1, "a", "b", 1)).to_string();
    http.post(JSON, body).await.expect(202);
    killed.process.kill();
    assert!(killed.places.iter().all(|path| path.exists()));

    let next = installed
        .start("next", &["dev", "--rate", "0", "--partitions", "3"])
        .await;
    assert!(
        next.text.contains("removed what a killed run left"),
        "{}",
        next.text
    );
    assert_gone(&killed.descendants, &killed.places);
    let path = format!("{TRANSACTIONS}/{}", id(1));
    next.http("/v1/accounts").get(&path).await.expect(404);
    let path = "/v1/partitions";
    let partitions = next.http("/v1/accounts").get(path).await.expect(200).json();
    assert_eq!(
        partitions["partitions"].as_array().unwrap().len(),
        3,
        "{partitions}"
    );
    next.interrupt(&installed).await;
}

#[tokio::test]
async fn a_second_signal_and_a_closed_terminal_leave_nothing() {
    let installed = Installed::new().await;
    for (name, signals) in [("twice", ["INT", "INT", "TERM"]), ("hangup", ["HUP"; 3])] {
        let dev = installed.start(name, &["dev", "--rate", "0"]).await;
        for signal in signals {
            dev.process.signal(signal);
        }
        dev.ends(&installed, 0).await;
    }
}

#[tokio::test]
async fn without_its_database_it_ends_and_says_so() {
    let installed = Installed::new().await;
    let dev = installed.start("bereft", &["dev", "--rate", "0"]).await;
    let of_dev = |id: &u32| state_and_parent(*id).is_some_and(|(_, p)| p == dev.process.pid());
    let server = dev.descendants.iter().find(|id| of_dev(id)).unwrap();
    let killed = Command::new("kill")
        .args(["-QUIT", &server.to_string()])
        .status();
    assert!(killed.unwrap().success());
    let ended = dev.ends(&installed, 1).await;
    ended.names(&["the private Postgres has ended"]);
}
