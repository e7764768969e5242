//! The services of one run, and where they listen.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::PgConnection;

use crate::processes;
use crate::programs::{Millrace, Service};

/// Joining the group takes seconds where a group of that name has just ended.
const JOIN_MAX: Duration = Duration::from_mins(1);
const JOIN_POLL: Duration = Duration::from_millis(100);

/// What `millrace` finds in its environment.
pub type Environment = [(&'static str, String)];

/// Services that run, in the order in which they were started. Dropping them kills them.
#[derive(Debug)]
pub struct Services<'a> {
    millrace: &'a Millrace,
    /// The start of their logs' names.
    name: String,
    all: Vec<(&'static str, Service)>,
}

impl<'a> Services<'a> {
    /// None yet.
    pub fn new(millrace: &'a Millrace, name: &str) -> Self {
        Self {
            millrace,
            name: name.to_owned(),
            all: Vec::new(),
        }
    }

    /// Starts one by the name of its command.
    pub fn start(
        &mut self,
        command: &'static str,
        flags: &[&str],
        environment: &Environment,
    ) -> anyhow::Result<&mut Service> {
        let name = format!("{}-{command}", self.name);
        let arguments: Vec<_> = std::iter::once(&command)
            .chain(flags)
            .map(ToString::to_string)
            .collect();
        let service = self.millrace.start(&name, &arguments, environment)?;
        self.all.push((command, service));
        let (_, service) = self.all.last_mut().context("it was just added")?;
        Ok(service)
    }

    /// Starts one that says where it listens on a port of its own choice.
    pub async fn serve(
        &mut self,
        command: &'static str,
        environment: &Environment,
    ) -> anyhow::Result<SocketAddr> {
        let service = self.start(command, &["--listen", "127.0.0.1:0"], environment)?;
        let text = format!("{command}: http://");
        address(&service.said(&text).await?)
    }

    /// CPU of each, in microseconds.
    pub fn cpu(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let each = self.all.iter();
        each.map(|(command, service)| Ok((*command, processes::cpu(service.pid())?)))
            .collect()
    }

    /// Fails when one of them has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.all
            .iter_mut()
            .try_for_each(|(_, service)| service.check())
    }

    /// Asks each to stop, the last first, and waits until it has.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        while let Some((command, service)) = self.all.pop() {
            service.stop().await.context(command)?;
        }
        Ok(())
    }
}

/// The host and port that a URL without its scheme begins with.
pub fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let host = url.split('/').next().unwrap_or_default();
    host.parse().with_context(|| format!("address {host:?}"))
}

/// Waits until every partition has an owner: joining is not what is measured.
pub async fn joined(connection: &mut PgConnection, partitions: u32) -> anyhow::Result<()> {
    let mut waited = Duration::ZERO;
    while waited < JOIN_MAX {
        let owned: i64 =
            sqlx::query_scalar("select count(*) from reports.freshness where owner is not null")
                .fetch_one(&mut *connection)
                .await?;
        if owned >= i64::from(partitions) {
            return Ok(());
        }
        tokio::time::sleep(JOIN_POLL).await;
        waited += JOIN_POLL;
    }
    bail!("after {JOIN_MAX:?} not all of {partitions} partitions have an owner")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_a_url_begins_with() {
        let found = address("127.0.0.1:8080/v1/transactions").unwrap();
        assert_eq!(found, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert!(address("/v1").is_err());
    }
}
