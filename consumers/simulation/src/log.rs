//! The log as a lane sees it: the simulated broker behind the ledger's own trait.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_ledger::kafka::log::{Bounds, Error, Event, Hint, Log, Topic};
use millrace_ledger::record::{Incoming, Intake};
use rand::RngExt as _;

use crate::fault::Fault;
use crate::world::{Handle, MILLI, Micros, SECOND, State};

/// The topic's name.
pub const TOPIC: &str = "transactions.submitted";

/// The most records that one call hands out of a partition.
const RECORDS_MAX: i64 = 40;

/// A member of the group, or an operator's client, which is none.
pub(crate) struct SimulatedLog {
    world: Handle,
    actor: usize,
    member: Option<u64>,
    fetchers: BTreeMap<i32, Fetcher>,
    /// What was seen last.
    bounds: BTreeMap<i32, Bounds>,
}

/// How far a partition was handed out.
#[derive(Debug, Clone, Copy)]
struct Fetcher {
    version: usize,
    next: i64,
    /// Whether the end was told since the last record.
    end_told: bool,
    stalled_until: Micros,
    /// Whether the next records come from too far on.
    is_early: bool,
}

impl SimulatedLog {
    /// Joins the group.
    pub fn join(world: &Handle, actor: usize) -> Self {
        let member = {
            let mut state = world.state();
            let State { broker, random, .. } = &mut *state;
            let member = broker.join(random);
            state.actors[actor].member = Some(member);
            member
        };
        Self {
            member: Some(member),
            ..Self::outside(world, actor)
        }
    }

    /// A client that only asks.
    pub fn outside(world: &Handle, actor: usize) -> Self {
        Self {
            world: Handle::clone(world),
            actor,
            member: None,
            fetchers: BTreeMap::new(),
            bounds: BTreeMap::new(),
        }
    }

    /// A request to the broker and its answer.
    async fn request(&self, what: &'static str, number: i64) -> Result<(), Error> {
        self.world.call(self.actor).await;
        let mut state = self.world.state();
        if state.now < state.broker.away_until || state.strikes(Fault::LogRequest) {
            return Err(Error::Unavailable(format!("{what}: no broker")));
        }
        state.note(crate::trace::Who::Actor(self.actor), what, &[number]);
        Ok(())
    }

    /// An event, or what is there.
    fn look(&mut self, intake: &mut Intake) -> Option<Event> {
        let world = Handle::clone(&self.world);
        let mut state = world.state();
        let event = self.event(&mut state);
        if event.is_some() {
            // What was fetched before the event may come with it.
            if state.random.random_bool(0.3) {
                self.hand_out(&mut state, intake);
            }
            if let Some(Event::Revoked(partitions)) = &event {
                self.fetchers
                    .retain(|partition, _| !partitions.contains(partition));
            }
            return event;
        }
        if state.now >= state.broker.away_until {
            self.hand_out(&mut state, intake);
        }
        None
    }

    fn event(&mut self, state: &mut State) -> Option<Event> {
        let member = self.member?;
        if state.strikes(Fault::BrokenClient) {
            return Some(Event::Broken("simulated".into()));
        }
        if state.strikes(Fault::EmptyAssignment) {
            return Some(Event::Assigned(Vec::new()));
        }
        let State { broker, random, .. } = state;
        if let Some(event) = broker.take_event(member, random) {
            note(state, self.actor, &event);
            return Some(event);
        }
        let spurious = state.strikes(Fault::OutOfRange);
        let lost = self.fetchers.iter().find(|(partition, fetcher)| {
            let log = state.broker.partition(**partition);
            let in_range = (log.start..=log.end).contains(&fetcher.next);
            spurious || fetcher.version != log.version() || !in_range
        });
        let partition = *lost?.0;
        self.fetchers.remove(&partition);
        let event = Event::OutOfRange(partition);
        note(state, self.actor, &event);
        Some(event)
    }

    fn hand_out(&mut self, state: &mut State, intake: &mut Intake) {
        let partitions: Vec<_> = self.fetchers.keys().copied().collect();
        if partitions.is_empty() {
            return;
        }
        let first = state.random.random_range(0..partitions.len());
        for place in 0..partitions.len() {
            let partition = partitions[(first + place) % partitions.len()];
            let fetcher = self.fetchers.get_mut(&partition).expect("it is a key");
            if self.member.is_none() {
                fetcher.version = state.broker.partition(partition).version();
            }
            if state.broker.partition(partition).version() != fetcher.version
                || fetcher.stalled_until > state.now
            {
                continue;
            }
            if state.strikes(Fault::Stall) {
                fetcher.stalled_until = state.now + state.random.random_range(MILLI..20 * SECOND);
                continue;
            }
            if state.random.random_bool(0.25) {
                let seen = state.broker.partition(partition).bounds();
                self.bounds.insert(partition, seen);
            }
            fetcher.hand_out(state, partition, intake);
            if self.member.is_some() {
                state.actors[self.actor]
                    .versions
                    .insert(partition, fetcher.version);
            }
        }
    }
}

impl Fetcher {
    fn hand_out(&mut self, state: &mut State, partition: i32, intake: &mut Intake) {
        let most = if state.random.random_bool(0.3) {
            state.random.random_range(1..4)
        } else {
            RECORDS_MAX
        };
        if self.is_early {
            let beyond = self.next + state.random.random_range(1..4);
            if let Some((offset, _)) = state.broker.partition(partition).first_from(beyond) {
                self.next = offset;
                self.is_early = false;
            }
        }
        let again = if state.strikes(Fault::RepeatedRecords) {
            state.random.random_range(1..6)
        } else {
            0
        };
        let log = state.broker.partition(partition);
        let from = (self.next - again).max(log.start);
        let end = log.visible_end(state.now);
        let next = (self.next + most).min(end);
        for (offset, sent) in log.records(self.version, from, next) {
            intake.push(Incoming {
                partition,
                offset,
                timestamp: sent.timestamp,
                key: sent.key.as_deref(),
                value: sent.value.as_deref(),
                headers: sent.headers.iter().copied(),
            });
            self.end_told = false;
        }
        let numbers = [i64::from(partition), from, next];
        self.next = self.next.max(next);
        if self.next >= end && !self.end_told {
            self.end_told = true;
            intake.push_end(partition, end);
        }
        if numbers[1] < numbers[2] {
            state.note(crate::trace::Who::World, "handed out", &numbers);
        }
    }
}

fn note(state: &mut State, actor: usize, event: &Event) {
    let who = crate::trace::Who::Actor(actor);
    match event {
        Event::Assigned(partitions) => {
            let numbers: Vec<_> = partitions.iter().map(|p| i64::from(*p)).collect();
            state.note(who, "assigned", &numbers);
        }
        Event::Revoked(partitions) => {
            let numbers: Vec<_> = partitions.iter().map(|p| i64::from(*p)).collect();
            state.note(who, "revoked", &numbers);
        }
        Event::OutOfRange(partition) => {
            state.note(who, "out of range", &[i64::from(*partition)]);
        }
        Event::Broken(_) => state.note(who, "broken", &[]),
    }
}

impl Log for SimulatedLog {
    async fn poll(&mut self, wait: Duration, intake: &mut Intake) -> Option<Event> {
        self.world.call(self.actor).await;
        let event = self.look(intake);
        if event.is_some() || !intake.is_empty() {
            return event;
        }
        let wait = Micros::try_from(wait.as_micros()).unwrap_or(Micros::MAX);
        self.world.turn(self.actor, wait).await;
        self.look(intake)
    }

    async fn topic(&mut self) -> Result<Topic, Error> {
        self.request("topic", crate::trace::NONE).await?;
        let state = self.world.state();
        let wrong = i32::from(state.now < state.broker.wrong_count_until);
        Ok(Topic {
            name: TOPIC.to_owned(),
            partitions: state.workload.partitions() + wrong,
            cluster_id: Some("simulated".to_owned()),
        })
    }

    async fn bounds(&mut self, partition: i32) -> Result<Bounds, Error> {
        self.request("bounds", i64::from(partition)).await?;
        let (bounds, lags) = {
            let state = self.world.state();
            let log = state.broker.partition(partition);
            (log.bounds(), log.visible_end(state.now) < log.end)
        };
        if lags {
            // As KIP-207 has it: a new leader tells no end before it knows the last one.
            return Err(Error::Unavailable("bounds: the leader is new".into()));
        }
        self.bounds.insert(partition, bounds);
        Ok(bounds)
    }

    fn problem(&self) -> Option<Error> {
        let state = self.world.state();
        (state.now < state.broker.away_until).then(|| Error::Unavailable("no broker".into()))
    }

    fn last_bounds(&self, partition: i32) -> Option<Bounds> {
        self.bounds.get(&partition).copied()
    }

    async fn start(&mut self, positions: &[(i32, i64)]) -> Result<(), Error> {
        if positions.is_empty() {
            return Ok(());
        }
        // Records from too far on come after a partition was begun, and not again after the seek that they
        // cause.
        let mut begun = Vec::new();
        for (partition, _) in positions {
            if self.fetchers.remove(partition).is_none() {
                begun.push(*partition);
            }
        }
        self.request("start", i64::from(positions[0].0)).await?;
        let mut state = self.world.state();
        for (partition, offset) in positions {
            let may = self.member.is_some() && begun.contains(partition);
            let early = may && state.strikes(Fault::EarlyRecords);
            let fetcher = Fetcher {
                version: state.broker.partition(*partition).version(),
                next: *offset,
                end_told: false,
                stalled_until: 0,
                is_early: early,
            };
            self.fetchers.insert(*partition, fetcher);
        }
        Ok(())
    }

    fn hold(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.fetchers.remove(partition);
        }
    }

    fn hint(&mut self, hints: &[Hint]) {
        let mut state = self.world.state();
        let lost = state.now < state.broker.away_until || state.strikes(Fault::HintLost);
        if let Some(member) = self.member
            && !lost
        {
            state.broker.hint(member, hints);
        }
    }

    async fn hints(&mut self, partitions: &[i32]) -> Result<Vec<Hint>, Error> {
        self.request("hints", crate::trace::NONE).await?;
        let mut state = self.world.state();
        let hints = state.broker.hints(partitions);
        for hint in &hints {
            state.actors[self.actor]
                .hinted
                .insert(hint.partition, *hint);
        }
        Ok(hints)
    }
}
