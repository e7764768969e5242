//! A TCP proxy that can be slow, hold everything back or cut its connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// As much as is delayed at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They go on at once.
    Pass,
    /// Each chunk waits this long, in both directions.
    Slow(Duration),
    /// They wait until the mode changes. New connections are taken and wait too.
    Stalled,
    /// Connections are reset, new ones too.
    Cut,
}

/// A proxy for one client and one server; ends with its value.
#[derive(Debug)]
pub struct Proxy {
    mode: watch::Sender<Mode>,
    /// Where it listens.
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens; port 0 picks a free one.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, target, modes));
        Ok(Self {
            mode,
            address,
            _serving: serving,
        })
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, modes: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                connections.spawn(forward(client, target, modes.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Until one side ends or the connection is cut.
async fn forward(mut client: TcpStream, target: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let is_cut = *modes.borrow_and_update() == Mode::Cut;
    // A server that is away refuses, and so do we.
    let server = if is_cut {
        None
    } else {
        TcpStream::connect(target).await.ok()
    };
    let Some(mut server) = server else {
        reset(client);
        return;
    };
    // Whatever the kernel says to it: without, bytes wait a little longer.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let cut = modes.clone();
    tokio::select! {
        () = pump(client_read, server_write, modes.clone()) => {}
        () = pump(server_read, client_write, modes) => {}
        () = is(cut, Mode::Cut) => {}
    }
    reset(client);
    reset(server);
}

/// Ends when one of both does.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut modes: watch::Receiver<Mode>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let bytes = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => bytes,
        };
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Slow(latency) => tokio::time::sleep(latency).await,
            Mode::Stalled => {
                if modes.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
                    return;
                }
            }
            Mode::Pass | Mode::Cut => {}
        }
        if to.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
    }
}

async fn is(mut modes: watch::Receiver<Mode>, wanted: Mode) {
    if modes.wait_for(|mode| *mode == wanted).await.is_err() {
        // The proxy goes, and its connections with it.
        std::future::pending::<()>().await;
    }
}

/// Closes so that the peer sees a reset, not an end.
fn reset(stream: TcpStream) {
    // Where that cannot be set, the peer sees an end.
    let _ = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and a client behind a proxy.
    async fn echo() -> (Proxy, TcpStream, JoinSet<()>) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).await.unwrap();
        let target = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            // It ends with a reset.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let proxy = Proxy::start(any, target).await.unwrap();
        let client = TcpStream::connect(proxy.address).await.unwrap();
        (proxy, client, serving)
    }

    async fn send(client: &mut TcpStream) -> io::Result<[u8; 4]> {
        client.write_all(b"ping").await?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn what_is_stalled_comes_later_and_what_is_cut_never() {
        let (proxy, mut client, _server) = echo().await;
        assert_eq!(&send(&mut client).await.unwrap(), b"ping");
        proxy.set(Mode::Slow(Duration::from_millis(1)));
        assert_eq!(&send(&mut client).await.unwrap(), b"ping");
        proxy.set(Mode::Stalled);
        let waited = tokio::time::timeout(Duration::from_millis(50), send(&mut client)).await;
        assert!(waited.is_err());
        proxy.set(Mode::Pass);
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
        proxy.set(Mode::Cut);
        let mut rest = Vec::new();
        let error = client.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
