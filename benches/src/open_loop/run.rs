//! One run, from starting the services to checked figures.

use std::collections::BTreeMap;

use anyhow::Context as _;
use millrace_benches::conditions::{self, Conditions};
use millrace_benches::latency::Latency;
use millrace_benches::programs::Millrace;
use millrace_benches::scratch::{Scratch, Servers};
use millrace_benches::services::Services;
use millrace_benches::signals::Signals;

use crate::case::Case;
use crate::cli::{Cli, Settings};
use crate::offer::{self, Measured};
use crate::place::{Place, costs};
use crate::posted;
use crate::record::{Figures, Record};

/// What all runs need.
#[derive(Debug)]
pub struct OpenLoop {
    millrace: Millrace,
    /// None for dev mode.
    servers: Option<Servers>,
    settings: Settings,
}

impl OpenLoop {
    /// As the flags want it.
    pub fn new(cli: &Cli) -> anyhow::Result<Self> {
        let servers = || {
            let database_url = cli.database_url.as_deref().context("no database URL")?;
            anyhow::Ok(Servers {
                brokers: cli.brokers.clone().context("no brokers")?,
                database: database_url.parse().context("the database URL")?,
            })
        };
        Ok(Self {
            millrace: Millrace::find(cli.millrace.as_deref())?,
            servers: (!cli.dev).then(servers).transpose()?,
            settings: cli.settings.clone(),
        })
    }

    /// Starts everything, offers the load, checks, and removes everything; none when a signal ended it.
    /// Fails where something could not be removed.
    pub async fn run(
        &self,
        case: Case,
        place: u32,
        signals: &mut Signals,
    ) -> anyhow::Result<Option<anyhow::Result<Record>>> {
        let name = format!("millrace_open_{}_{place}", std::process::id());
        let scratch = match &self.servers {
            Some(servers) => Some(Scratch::create(servers, name.clone()).await?),
            None => None,
        };
        let mut services = Services::new(&self.millrace, &name);
        let outcome = tokio::select! {
            outcome = self.measure(case, scratch.as_ref(), &mut services) => Some(outcome),
            () = signals.received() => None,
        };
        let stopped = services.stop().await;
        if let Some(scratch) = scratch {
            scratch.remove().await?;
        }
        Ok(outcome.map(|record| record.and_then(|record| stopped.map(|()| record))))
    }

    async fn measure(
        &self,
        case: Case,
        scratch: Option<&Scratch>,
        services: &mut Services<'_>,
    ) -> anyhow::Result<Record> {
        let mut place = match (&self.servers, scratch) {
            (Some(servers), Some(scratch)) => {
                Place::start(&self.millrace, servers, scratch, &self.settings, services).await?
            }
            _ => Place::start_dev(&self.settings, services).await?,
        };
        place.ready(&self.settings).await?;
        let conditions = Conditions::read(
            &mut place.connection,
            &place.meter,
            &self.millrace,
            &place.brokers,
        );
        let conditions = conditions.await?;
        let before = place.spent(services).await?;
        let (measured, seconds) = offer::run(case, &self.settings, &place).await?;
        let after = place.spent(services).await?;
        services.check()?;
        let all_posted = posted::wait_for(&mut place.connection, measured.all_accepted).await?;
        let figures = Figures {
            cpu_us: costs(&before, &after, measured.all_accepted),
            all_posted,
            ..figures(measured, seconds)
        };
        let mut failures = figures.failures();
        let verified = self
            .millrace
            .run(&["verify".into()], &place.environment)
            .await;
        failures.extend(verified.err().map(|failure| format!("{failure:#}")));
        Ok(Record {
            at: conditions::clock(&mut place.connection).await?,
            case,
            settings: self.settings.clone(),
            servers: if scratch.is_some() { "kafka" } else { "dev" }.into(),
            figures,
            failures,
            conditions,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn figures(measured: Measured, seconds: f64) -> Figures {
    Figures {
        accepted_per_s: measured.counts.accepted as f64 / seconds,
        seconds,
        counts: measured.counts,
        all_accepted: measured.all_accepted,
        all_failed: measured.all_failed,
        all_posted: 0,
        accept: Latency::of(&measured.accept),
        visible: Latency::of(&measured.visible),
        visible_after: Latency::of(&measured.visible_after),
        cpu_us: BTreeMap::default(),
    }
}
