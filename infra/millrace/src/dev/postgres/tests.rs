//! With real servers; `MILLRACE_DEV_POSTGRES` chooses which, as for the program.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A base directory that the server's user can enter.
fn base() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(parent.path(), open).unwrap();
    let base = parent.path().canonicalize().unwrap().join("dev");
    (parent, base)
}

async fn start(base: &Path) -> PrivatePostgres {
    let choice = Choice::of_environment().unwrap();
    PrivatePostgres::start_in(base.to_owned(), choice, &println_in_test)
        .await
        .unwrap()
}

#[expect(clippy::print_stdout, reason = "shown when a test fails")]
fn println_in_test(line: &str) {
    println!("{line}");
}

/// Asks for the process and not on the port, which another test may have by now.
fn is_served(server: u32, data: &Path) -> bool {
    let pid = server
        .try_into()
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    process::serves(pid.unwrap(), data)
}

/// Names in the base directory, without what changes from run to run.
fn left_in(base: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(base) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !name.starts_with("postgres-"))
        .map(|name| {
            if name.starts_with("run-") {
                "run-x".to_owned()
            } else {
                name
            }
        })
        .collect()
}

/// Without a private copy not even the directory is.
fn assert_only_the_copy_is_left(base: &Path) {
    assert!(left_in(base).is_empty());
    let fetched = base.join("postgres-17.6.0").exists();
    assert_eq!(base.exists(), fetched);
}

async fn connect(url: &str) -> Result<sqlx::PgConnection, sqlx::Error> {
    sqlx::PgConnection::connect(url).await
}

async fn setting(connection: &mut sqlx::PgConnection, name: &str) -> String {
    sqlx::query_scalar("select current_setting($1)")
        .bind(name)
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn it_serves_and_leaves_nothing() {
    let (_parent, base) = base();
    let began = Instant::now();
    let postgres = start(&base).await;
    println_in_test(&format!("started in {:?}", began.elapsed()));
    let mut connection = connect(&postgres.url()).await.unwrap();
    for (name, expected) in [("fsync", "off"), ("synchronous_commit", "on")] {
        assert_eq!(setting(&mut connection, name).await, expected, "{name}");
    }
    assert!(setting(&mut connection, "is_superuser").await == "on");
    let (server, data) = (postgres.server.id(), postgres.home.data());
    assert!(is_served(server, &data));
    let began = Instant::now();
    // With a session open, which must not hold it up.
    postgres.stop().await.unwrap();
    println_in_test(&format!("stopped in {:?}", began.elapsed()));
    assert!(began.elapsed() < STOP_TIMEOUT);
    assert!(!is_served(server, &data));
    assert_only_the_copy_is_left(&base);
}

#[tokio::test]
async fn two_run_side_by_side_and_a_dropped_one_is_gone() {
    let (_parent, base) = base();
    let first = start(&base).await;
    let second = start(&base).await;
    let (first_url, second_url) = (first.url(), second.url());
    assert_ne!(first_url, second_url);
    connect(&second_url).await.unwrap();
    let (server, data) = (second.server.id(), second.home.data());
    drop(second);
    assert!(!is_served(server, &data));
    connect(&first_url).await.unwrap();
    first.stop().await.unwrap();
    assert_only_the_copy_is_left(&base);
}

#[tokio::test]
async fn the_next_start_cleans_up_after_a_killed_run() {
    let (_parent, base) = base();
    let killed = start(&base).await;
    let (server, data) = (killed.server.id(), killed.home.data());
    killed.home.unlock_as_if_killed();
    std::mem::forget(killed);
    assert!(is_served(server, &data));

    let next = start(&base).await;
    assert!(!is_served(server, &data));
    assert_eq!(left_in(&base), ["run-x"], "that of the next one");
    next.stop().await.unwrap();
    assert_only_the_copy_is_left(&base);
}

#[tokio::test]
async fn a_base_that_the_server_cannot_enter_is_no_obstacle() {
    // A temporary directory is closed to others; this matters to root only.
    let parent = tempfile::tempdir().unwrap();
    let base = parent.path().join("dev");
    let postgres = start(&base).await;
    let place = postgres.home.place().to_owned();
    connect(&postgres.url()).await.unwrap();
    postgres.home.unlock_as_if_killed();
    std::mem::forget(postgres);

    let next = start(&base).await;
    assert!(next.home.place() == place, "the place is free again");
    next.stop().await.unwrap();
    assert!(!place.exists());
    assert_only_the_copy_is_left(&base);
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_its_log() {
    let (_parent, base) = base();
    std::fs::create_dir(&base).unwrap();
    let bin = base.join("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, script) in [
        ("initdb", "#!/bin/sh\nexit 0\n"),
        (
            "postgres",
            "#!/bin/sh\n[ \"$1\" != --version ] || { echo '(PostgreSQL) 16.1'; exit; }\necho out of luck; exit 3\n",
        ),
    ] {
        std::fs::write(bin.join(name), script).unwrap();
        let runnable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.join(name), runnable).unwrap();
    }
    let choice = Choice::Directory(bin.clone());
    let error = PrivatePostgres::start_in(base.clone(), choice, &println_in_test)
        .await
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("exit status: 3") && text.contains("out of luck"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(&base).unwrap().count(), 1, "only bin");
}

#[test]
fn readiness_is_the_servers_own_word() {
    let file = "12\n/data\n1700000000\n5432\n/data\n127.0.0.1\n  1234   5\nready   \n";
    assert!(is_ready(file, 12));
    assert!(!is_ready(file, 13));
    assert!(!is_ready(&file.replace("ready", "starting"), 12));
    assert!(!is_ready("12\n/data\n", 12));
    assert!(!is_ready("", 12));
}

#[test]
fn a_socket_needs_a_short_and_plain_path() {
    assert!(fits_socket(Path::new("/var/lib/millrace-dev-1/data")));
    assert!(!fits_socket(Path::new("/a b")));
    assert!(!fits_socket(&Path::new("/").join("x".repeat(90))));
}
