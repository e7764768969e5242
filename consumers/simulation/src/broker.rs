//! The simulated broker: a log per partition, and the group that shares them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;

use millrace_ledger::kafka::log::{Bounds, Event, Hint};
use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::workload::Sent;
use crate::world::Micros;

/// The topic and the group.
pub(crate) struct Broker {
    pub partitions: Vec<Partition>,
    pub away_until: Micros,
    /// Until when it tells of another partition count.
    pub wrong_count_until: Micros,
    members: BTreeMap<u64, Member>,
    owners: Vec<Owner>,
    hints: Vec<Option<Hint>>,
    member_next: u64,
    /// Rebalances so far.
    pub rebalances: u64,
}

/// One partition of the log. Every state that was ever read from stays, for the oracle.
#[derive(Debug)]
pub(crate) struct Partition {
    versions: Vec<Version>,
    pub start: i64,
    pub end: i64,
    /// Until when its leader hands out only what is before the offset.
    pub lag: Option<(Micros, i64)>,
    /// Whether something happened to it that may stop it until an operator acts.
    pub is_excused: bool,
}

/// The records by offset, until the log was truncated or recreated; then there is another version.
#[derive(Debug, Clone, Default)]
struct Version {
    /// Where it began when it ended: what is before cannot be recognised in another one.
    start: i64,
    records: BTreeMap<i64, Rc<Sent>>,
}

#[derive(Debug)]
struct Member {
    events: VecDeque<Event>,
    /// What it was told that it has.
    told: BTreeSet<i32>,
    /// Whether the group has given it up.
    is_lost: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Owner {
    current: Option<u64>,
    /// Who gets it when the current one has given it back.
    next: Option<u64>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owners {:?}, members {:?}", self.owners, self.members)
    }
}

impl Partition {
    /// The version that is read now.
    pub fn version(&self) -> usize {
        self.versions.len() - 1
    }

    /// How far records are handed out now.
    pub fn visible_end(&self, now: Micros) -> i64 {
        match self.lag {
            Some((until, end)) if now < until => end.min(self.end),
            _ => self.end,
        }
    }

    pub fn bounds(&self) -> Bounds {
        Bounds {
            start: self.start,
            end: self.end,
        }
    }

    pub fn record(&self, version: usize, offset: i64) -> Option<&Rc<Sent>> {
        self.versions[version].records.get(&offset)
    }

    /// The first record at `offset` or beyond it, that is there now.
    pub fn first_from(&self, offset: i64) -> Option<(i64, &Rc<Sent>)> {
        let records = &self.versions[self.version()].records;
        let first = records.range(offset.max(self.start)..).next();
        first.map(|(offset, sent)| (*offset, sent))
    }

    pub fn records(&self, version: usize, from: i64, next: i64) -> Vec<(i64, Rc<Sent>)> {
        let records = self.versions[version].records.range(from..next.max(from));
        records
            .map(|(offset, sent)| (*offset, Rc::clone(sent)))
            .collect()
    }

    /// Adds a record or a hole.
    pub fn append(&mut self, sent: Option<Rc<Sent>>) {
        if let Some(sent) = sent {
            let version = self.version();
            self.versions[version].records.insert(self.end, sent);
        }
        self.end += 1;
    }

    /// Deletes what is before `start`.
    pub fn retain_from(&mut self, start: i64) {
        self.start = start;
        self.is_excused = true;
    }

    /// Deletes what is at `end` and beyond.
    pub fn truncate(&mut self, end: i64) {
        let mut version = self.versions[self.version()].clone();
        version.records.split_off(&end);
        self.versions.push(version);
        self.end = end;
        self.is_excused = true;
    }

    /// Begins anew with an empty log.
    pub fn recreate(&mut self) {
        let version = self.version();
        self.versions[version].start = self.start;
        self.versions.push(Version::default());
        (self.start, self.end) = (0, 0);
        self.is_excused = true;
    }
}

impl Broker {
    pub fn new(partitions: i32) -> Self {
        let count = usize::try_from(partitions).unwrap_or(0);
        let partition = || Partition {
            versions: vec![Version::default()],
            start: 0,
            end: 0,
            lag: None,
            is_excused: false,
        };
        Self {
            partitions: std::iter::repeat_with(partition).take(count).collect(),
            away_until: 0,
            wrong_count_until: 0,
            members: BTreeMap::new(),
            owners: vec![Owner::default(); count],
            hints: vec![None; count],
            member_next: 1,
            rebalances: 0,
        }
    }

    pub fn partition(&self, partition: i32) -> &Partition {
        &self.partitions[place(partition)]
    }

    /// A new member.
    pub fn join(&mut self, random: &mut SmallRng) -> u64 {
        let member = self.member_next;
        self.member_next += 1;
        self.members.insert(
            member,
            Member {
                events: VecDeque::new(),
                told: BTreeSet::new(),
                is_lost: false,
            },
        );
        self.rebalance(random);
        member
    }

    /// The member is gone, or taken for that: its partitions are given to others at once.
    pub fn lose(&mut self, member: u64, random: &mut SmallRng) {
        let Some(lost) = self.members.get_mut(&member) else {
            return;
        };
        if std::mem::replace(&mut lost.is_lost, true) {
            return;
        }
        lost.events.clear();
        for partition in 0..self.owners.len() {
            let owner = &mut self.owners[partition];
            if owner.next == Some(member) {
                owner.next = None;
            }
            if owner.current != Some(member) {
                continue;
            }
            owner.current = owner.next.take();
            if let Some(next) = owner.current {
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                self.tell(next, Event::Assigned(vec![partition]));
            }
        }
        self.rebalance(random);
    }

    /// Nobody waits for the member any more.
    pub fn forget(&mut self, member: u64, random: &mut SmallRng) {
        self.lose(member, random);
        self.members.remove(&member);
    }

    pub fn is_lost(&self, member: u64) -> bool {
        self.members
            .get(&member)
            .is_none_or(|member| member.is_lost)
    }

    pub fn is_owner(&self, member: u64, partition: i32) -> bool {
        self.owners[place(partition)].current == Some(member)
    }

    /// Gives partitions to the members that are there; some move for no reason.
    pub fn rebalance(&mut self, random: &mut SmallRng) {
        self.rebalances += 1;
        let live: Vec<_> = self.live();
        let mut revoked: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
        let mut assigned: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
        let moving = random.random_bool(0.5);
        for (partition, owner) in (0..).zip(&mut self.owners) {
            if owner.next.is_some() {
                continue;
            }
            let stays = owner.current.is_some() && !(moving && random.random_bool(0.4));
            if stays || live.is_empty() {
                continue;
            }
            let target = live[random.random_range(0..live.len())];
            match owner.current {
                Some(current) if current == target => {}
                Some(current) => {
                    owner.next = Some(target);
                    revoked.entry(current).or_default().push(partition);
                }
                None => {
                    owner.current = Some(target);
                    assigned.entry(target).or_default().push(partition);
                }
            }
        }
        for (member, partitions) in revoked {
            self.tell(member, Event::Revoked(partitions));
        }
        for (member, partitions) in assigned {
            self.tell(member, Event::Assigned(partitions));
        }
    }

    /// Tells a member again what it has.
    pub fn repeat_assignment(&mut self, random: &mut SmallRng) {
        let live = self.live();
        if live.is_empty() {
            return;
        }
        let member = live[random.random_range(0..live.len())];
        let has = |partition: &i32| {
            let owner = self.owners[place(*partition)];
            owner.current == Some(member) && owner.next.is_none()
        };
        let told = self.members[&member].told.iter().copied();
        let told: Vec<_> = told.filter(has).collect();
        if !told.is_empty() {
            self.tell(member, Event::Assigned(told));
        }
    }

    pub fn live(&self) -> Vec<u64> {
        let live = self.members.iter().filter(|(_, member)| !member.is_lost);
        live.map(|(member, _)| *member).collect()
    }

    /// The next event of a member, when it polls.
    pub fn take_event(&mut self, member: u64, random: &mut SmallRng) -> Option<Event> {
        let polled = self.members.get_mut(&member)?;
        if std::mem::take(&mut polled.is_lost) {
            // It joins again; until then everything that it has is another's.
            let told: Vec<_> = std::mem::take(&mut polled.told).into_iter().collect();
            self.rebalance(random);
            return (!told.is_empty()).then_some(Event::Revoked(told));
        }
        let event = polled.events.pop_front()?;
        match &event {
            Event::Assigned(partitions) => polled.told.extend(partitions),
            Event::Revoked(partitions) => {
                polled
                    .told
                    .retain(|partition| !partitions.contains(partition));
                for partition in partitions.clone() {
                    self.given_back(member, partition);
                }
            }
            Event::OutOfRange(_) | Event::Broken(_) => {}
        }
        Some(event)
    }

    fn given_back(&mut self, member: u64, partition: i32) {
        let owner = &mut self.owners[place(partition)];
        if owner.current != Some(member) {
            return;
        }
        owner.current = owner.next.take();
        match owner.current {
            Some(next) => self.tell(next, Event::Assigned(vec![partition])),
            // Whoever it was meant for is gone.
            None => {
                if let Some(next) = self.live().first().copied() {
                    self.owners[place(partition)].current = Some(next);
                    self.tell(next, Event::Assigned(vec![partition]));
                }
            }
        }
    }

    fn tell(&mut self, member: u64, event: Event) {
        if let Some(member) = self.members.get_mut(&member) {
            member.events.push_back(event);
        }
    }

    /// Keeps hints of a member of the group.
    pub fn hint(&mut self, member: u64, hints: &[Hint]) {
        if self.is_lost(member) {
            return;
        }
        for hint in hints {
            self.hints[place(hint.partition)] = Some(*hint);
        }
    }

    pub fn hints(&self, partitions: &[i32]) -> Vec<Hint> {
        let hints = partitions.iter().filter_map(|p| self.hints[place(*p)]);
        hints.collect()
    }
}

pub(crate) fn place(partition: i32) -> usize {
    usize::try_from(partition).expect("partitions count from 0")
}
