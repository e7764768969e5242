//! Where an instance keeps its files, and what becomes of those whose run was killed.
//!
//! `<base>/run-<pid>/` holds `lock`, which is locked as long as the run lives, and the instance's files;
//! or, if the server's user cannot reach them there, a file `place` that names a directory which has them.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::process::{end_server_of, wait_until};
use super::user::User;

const RUN_PREFIX: &str = "run-";
const PLACE_PREFIX: &str = "millrace-dev-";

/// Ends the text of an error: another user may have begun the directory.
const OWNER: &str = ", which this user must be allowed to";

/// Instances of one process: one, but for tests.
const NAMES_MAX: u32 = 100;

/// Another run holds the base directory while it cleans up, some seconds for each killed run.
const BASE_TIMEOUT: Duration = Duration::from_secs(30);

/// Processes that were just killed may add files to a directory that is being removed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The directories of an instance, removed with this value.
#[derive(Debug)]
pub struct Home {
    base: PathBuf,
    run: PathBuf,
    place: PathBuf,
    lock: File,
}

/// Where everything of `millrace dev` is: beside the build if this is one, else in the user's cache.
pub fn base() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    if let Some(target) = build_directory(&program) {
        return Ok(target.join("dev"));
    }
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .or_else(|| {
            rustix::process::geteuid()
                .is_root()
                .then(|| "/var/cache".into())
        })
        .context("no place for the private Postgres: set HOME or XDG_CACHE_HOME")?;
    Ok(cache.join("millrace/dev"))
}

impl Home {
    /// Makes a home after removing those of killed runs; also returns what there is to say about
    /// them. Blocks for seconds if there are any.
    pub fn create(base: &Path, user: Option<User>) -> anyhow::Result<(Self, Vec<String>)> {
        let (guard, base) = lock_base(base)?;
        let notes = remove_killed(&base)?;
        let name = format!("{RUN_PREFIX}{}", std::process::id());
        let run = new_directory(&base, &name)?;
        let lock = create_locked(&run.join("lock")).inspect_err(|_| {
            let _ = fs::remove_dir_all(&run); // the error that counts is the one returned
        })?;
        let mut home = Self {
            place: run.clone(),
            base,
            run,
            lock,
        };
        drop(guard);
        if let Some(user) = user {
            home.settle_for(user)?;
        }
        Ok((home, notes))
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    /// For files on the way to the base directory: on its file system.
    pub fn scratch(&self) -> PathBuf {
        self.run.join("unpack")
    }

    /// The instance's files.
    pub fn place(&self) -> &Path {
        &self.place
    }

    pub fn data(&self) -> PathBuf {
        data_in(&self.place)
    }

    #[cfg(test)]
    pub fn unlock_as_if_killed(&self) {
        self.lock.unlock().unwrap();
    }

    /// Removes every file; and the base directory, if nobody has anything there.
    pub fn remove(&mut self) -> anyhow::Result<()> {
        if self.place != self.run {
            remove_directory(&self.place)?;
        }
        remove_directory(&self.run)?;
        // Not while others are about to use it.
        if let Ok(directory) = File::open(&self.base)
            && directory.try_lock().is_ok()
        {
            let _ = fs::remove_dir(&self.base); // it fails if there is something in it
        }
        Ok(())
    }

    /// Makes the data directory, where the user can get at it.
    fn settle_for(&mut self, user: User) -> anyhow::Result<()> {
        if !user.may_enter(&self.run) {
            self.place = new_place_for(user)?;
            let place = self.place.as_os_str().as_encoded_bytes();
            write(&self.run.join("place"), place)?;
        }
        let data = self.data();
        fs::create_dir(&data)
            .and_then(|()| std::os::unix::fs::lchown(&data, Some(user.uid), Some(user.gid)))
            .with_context(|| format!("making {} for the server's user", data.display()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.run.exists()
            && let Err(error) = self.remove()
        {
            tracing::warn!("files of the private Postgres are left: {error:#}");
        }
        let _ = self.lock.unlock(); // as closing it does
    }
}

fn data_in(place: &Path) -> PathBuf {
    place.join("data")
}

fn build_directory(program: &Path) -> Option<&Path> {
    program
        .ancestors()
        .skip(1)
        .find(|step| step.file_name().is_some_and(|name| name == "target"))
}

/// Makes the base directory and keeps others from adding to it or cleaning it. The lock is on the
/// directory itself, which the last run removes: then make it again.
fn lock_base(base: &Path) -> anyhow::Result<(File, PathBuf)> {
    let mut locked = None;
    let mut failed = None;
    let attempt = || -> std::io::Result<Option<(File, PathBuf)>> {
        fs::create_dir_all(base)?;
        let directory = File::open(base)?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let path = base.canonicalize()?;
        let same = fs::metadata(&path)?.ino() == directory.metadata()?.ino();
        Ok(same.then_some((directory, path)))
    };
    wait_until(BASE_TIMEOUT, || {
        match attempt() {
            Ok(found) => locked = found,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => failed = Some(error),
        }
        locked.is_some() || failed.is_some()
    });
    if let Some(error) = failed {
        return Err(error)
            .with_context(|| format!("making the directory {}{OWNER}", base.display()));
    }
    locked.with_context(|| {
        format!(
            "another run has held {} for {} s: end it, or remove the directory",
            base.display(),
            BASE_TIMEOUT.as_secs()
        )
    })
}

/// Ends the servers and removes the files of all runs whose lock is free.
fn remove_killed(base: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(base).with_context(|| format!("reading {}", base.display()))?;
    let mut notes = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(RUN_PREFIX.as_bytes()) {
            continue;
        }
        let run = entry.path();
        match remove_if_killed(&run) {
            Ok(Killed::No) => {}
            Ok(Killed::Removed) => notes.push(format!(
                "removed what a killed run left in {}",
                run.display()
            )),
            Err(error) => notes.push(format!(
                "a killed run left {}, which cannot be cleaned: {error:#}",
                run.display()
            )),
        }
    }
    Ok(notes)
}

/// Whether a run was killed.
enum Killed {
    No,
    Removed,
}

fn remove_if_killed(run: &Path) -> anyhow::Result<Killed> {
    let mut options = File::options();
    // It is held until the files are gone: two runs never clean the same one.
    let _lock = match options.read(true).write(true).open(run.join("lock")) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock) => return Ok(Killed::No),
            Err(TryLockError::Error(error)) => return Err(error).context("locking it"),
        },
        // Another user's: theirs to clean.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Killed::No),
        // Killed before it had one, or being removed by its owner.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).context("opening its lock"),
    };
    let place = place_of(run)?;
    end_server_of(&data_in(&place))?;
    if place != run {
        remove_directory(&place)?;
    }
    remove_directory(run)?;
    Ok(Killed::Removed)
}

/// Where a run has its files. What is read here will be removed: only a name of ours is believed.
fn place_of(run: &Path) -> anyhow::Result<PathBuf> {
    let text = match fs::read_to_string(run.join("place")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(run.to_owned()),
        Err(error) => return Err(error).context("reading where its files are"),
    };
    let place = PathBuf::from(text);
    let name = place.file_name().unwrap_or_default().as_encoded_bytes();
    if !place.is_absolute() || !name.starts_with(PLACE_PREFIX.as_bytes()) {
        bail!("its files are said to be in {}", place.display());
    }
    Ok(place)
}

/// A directory outside of ours that the user can reach. `/var/lib` first: `/tmp` is memory on some
/// machines.
fn new_place_for(user: User) -> anyhow::Result<PathBuf> {
    let name = format!("{PLACE_PREFIX}{}", std::process::id());
    let mut failure = anyhow::anyhow!("not searchable by the server's user");
    for parent in [PathBuf::from("/var/lib"), std::env::temp_dir()] {
        if !user.may_enter(&parent) {
            continue;
        }
        match new_directory(&parent, &name) {
            Ok(place) => return Ok(place),
            Err(error) => failure = error,
        }
    }
    Err(failure.context("no place for the private Postgres in /var/lib or TMPDIR"))
}

/// A new directory that all may enter, whatever the umask.
fn new_directory(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    for number in 1..=NAMES_MAX {
        let path = match number {
            1 => parent.join(name),
            _ => parent.join(format!("{name}-{number}")),
        };
        match fs::create_dir(&path) {
            Ok(()) => {
                open_to_all(&path)?;
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("making {}{OWNER}", path.display()));
            }
        }
    }
    bail!(
        "{} has {NAMES_MAX} directories {name}: remove them",
        parent.display()
    )
}

/// Lets every user enter a directory.
pub fn open_to_all(directory: &Path) -> anyhow::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o755))
        .with_context(|| format!("opening {} to the server's user", directory.display()))
}

fn create_locked(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    file.try_lock()
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    let mut result = Ok(());
    wait_until(REMOVE_TIMEOUT, || {
        result = match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
        // The only failure that passes by itself.
        !matches!(&result, Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty)
    });
    result.with_context(|| format!("removing {}: remove it by hand", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_build_directory_is_taken() {
        for (program, expected) in [
            (
                "/a/target/b/target/debug/millrace",
                Some("/a/target/b/target"),
            ),
            ("/a/target/debug/deps/millrace-1", Some("/a/target")),
            ("/usr/bin/millrace", None),
            ("/usr/bin/target", None),
        ] {
            assert_eq!(
                build_directory(Path::new(program)),
                expected.map(Path::new),
                "{program}"
            );
        }
    }

    #[test]
    fn a_home_leaves_nothing_and_a_killed_one_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let base = parent.path().join("dev");
        let (mut live, _) = Home::create(&base, None).unwrap();
        let (killed, notes) = Home::create(&base, None).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        killed.unlock_as_if_killed();
        let old = killed.run.clone();
        std::mem::forget(killed);
        fs::create_dir(base.join("run-without-lock")).unwrap();

        let (next, notes) = Home::create(&base, None).unwrap();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(live.run.exists() && !base.join("run-without-lock").exists());
        assert!(next.run == old, "its name is free again");
        drop(next);
        live.remove().unwrap();
        assert!(!base.exists());
    }

    #[test]
    fn only_a_place_with_our_name_is_believed() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(place_of(run.path()).unwrap(), run.path());
        for (text, believed) in [
            ("/var/lib/millrace-dev-12", true),
            ("/var/lib", false),
            ("millrace-dev-12", false),
            ("/millrace-dev-1/..", false),
        ] {
            fs::write(run.path().join("place"), text).unwrap();
            assert_eq!(place_of(run.path()).is_ok(), believed, "{text}");
        }
    }
}
