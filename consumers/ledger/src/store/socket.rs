//! Small messages at once: `TCP_NODELAY` on connections to Postgres.
//!
//! sqlx 0.9 leaves Nagle's algorithm on and hands out neither its socket nor a way to bring one. A COPY
//! ends in a message of five bytes of its own, which then waits until the server's kernel acknowledges
//! the data before it: 40 ms, in every batch. So the socket is taken through a duplicate of its file
//! descriptor; a duplicate shares the options. Rejected: rows as arrays, a second way to write money;
//! a Unix socket, which only a database on the same machine has.

use std::io;
use std::net::TcpStream;

/// Sets it on every connection of this process to that port. Where the system does not permit that,
/// batches take longer and nothing else is different.
pub(super) fn send_at_once(port: u16) {
    match set(port) {
        Ok(count) => tracing::debug!(port, count, "small messages are sent at once"),
        Err(error) => {
            tracing::info!(%error, "TCP_NODELAY cannot be set: each batch may take 40 ms longer");
        }
    }
}

#[cfg(target_os = "linux")]
fn set(port: u16) -> io::Result<usize> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut count = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // Others open and close files meanwhile: one that is gone is no failure.
        let is_socket = std::fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let Some(number) = number.filter(|_| is_socket) else {
            continue;
        };
        let socket = match pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) {
            Ok(socket) => TcpStream::from(socket),
            Err(rustix::io::Errno::BADF) => continue,
            Err(error) => return Err(error.into()),
        };
        // A socket of another kind has no such peer. Dropping the duplicate closes nothing else.
        if socket.peer_addr().is_ok_and(|peer| peer.port() == port) {
            socket.set_nodelay(true)?;
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(not(target_os = "linux"))]
fn set(_: u16) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_connections_to_the_port_are_changed_and_all_stay_open() {
        let [database, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [to_database, to_other] = [&database, &other]
            .map(|server| TcpStream::connect(server.local_addr().unwrap()).unwrap());
        assert!(!to_database.nodelay().unwrap());
        assert_eq!(set(database.local_addr().unwrap().port()).unwrap(), 1);
        assert!(to_database.nodelay().unwrap());
        assert!(!to_other.nodelay().unwrap());
        assert!(to_database.peer_addr().is_ok() && to_other.peer_addr().is_ok());
    }
}
