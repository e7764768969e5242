//! The watchdog: a partition that has records to apply and does not get on.

use std::collections::BTreeMap;
use std::time::Duration;

/// When each partition last got on.
#[derive(Debug, Default)]
pub(super) struct Watch {
    partitions: BTreeMap<i32, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    position: i64,
    /// Since when it stands there with records to apply.
    since: Duration,
    /// When it was begun anew last.
    restarted_at: Option<Duration>,
    /// Whether it was not read when it was last looked at.
    unread: bool,
}

/// How a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It gets on, or has nothing to do.
    Fine,
    /// It has not got on for this long.
    Stalled(Duration),
    /// The same, and it is time to begin anew.
    Restart(Duration),
}

impl Watch {
    /// Looks at a partition that is read: its position, and whether records wait there.
    pub(super) fn look(
        &mut self,
        partition: i32,
        position: i64,
        is_behind: bool,
        now: Duration,
        stall_after: Duration,
    ) -> Pace {
        let seen = self.partitions.entry(partition).or_insert(Seen {
            position,
            since: now,
            restarted_at: None,
            unread: false,
        });
        if !is_behind || seen.position != position {
            *seen = Seen {
                position,
                since: now,
                restarted_at: None,
                unread: false,
            };
            return Pace::Fine;
        }
        // What is only now read again was begun anew a moment ago.
        if std::mem::take(&mut seen.unread) {
            seen.restarted_at = Some(now);
        }
        let standing = now.saturating_sub(seen.since);
        if standing < stall_after {
            return Pace::Fine;
        }
        if seen
            .restarted_at
            .is_some_and(|at| now.saturating_sub(at) < stall_after)
        {
            return Pace::Stalled(standing);
        }
        seen.restarted_at = Some(now);
        Pace::Restart(standing)
    }

    /// Looks at a partition that is not read: it is tried again and again anyway.
    pub(super) fn look_unread(
        &mut self,
        partition: i32,
        now: Duration,
        stall_after: Duration,
    ) -> Pace {
        let seen = self.partitions.entry(partition).or_insert(Seen {
            position: -1,
            since: now,
            restarted_at: None,
            unread: true,
        });
        seen.unread = true;
        let standing = now.saturating_sub(seen.since);
        if standing < stall_after {
            Pace::Fine
        } else {
            Pace::Stalled(standing)
        }
    }

    /// Keeps only what is said of these partitions.
    pub(super) fn retain(&mut self, keep: impl Fn(i32) -> bool) {
        self.partitions.retain(|partition, _| keep(*partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_stands_until_it_can() {
        let mut watch = Watch::default();
        let seconds = Duration::from_secs;
        assert_eq!(watch.look(0, 5, false, seconds(0), seconds(30)), Pace::Fine);
        assert_eq!(watch.look_unread(0, seconds(29), seconds(30)), Pace::Fine);
        let stalled = |standing| Pace::Stalled(seconds(standing));
        assert_eq!(watch.look_unread(0, seconds(30), seconds(30)), stalled(30));
        // Read again, it has all its time to get on, and has not got on yet.
        assert_eq!(
            watch.look(0, 5, true, seconds(31), seconds(30)),
            stalled(31)
        );
        assert_eq!(
            watch.look(0, 5, true, seconds(60), seconds(30)),
            stalled(60)
        );
        let restart = Pace::Restart(seconds(61));
        assert_eq!(watch.look(0, 5, true, seconds(61), seconds(30)), restart);
        assert_eq!(watch.look(0, 6, true, seconds(62), seconds(30)), Pace::Fine);
        assert_eq!(watch.look_unread(1, seconds(60), seconds(30)), Pace::Fine);
        assert_eq!(watch.look_unread(1, seconds(90), seconds(30)), stalled(30));
    }

    #[test]
    fn one_that_is_read_and_fails_and_is_read_again_does_not_get_on() {
        let mut watch = Watch::default();
        let seconds = Duration::from_secs;
        for at in 0..15 {
            let pace = watch.look(0, 5, true, seconds(2 * at), seconds(30));
            assert_eq!(pace, Pace::Fine);
            let pace = watch.look_unread(0, seconds(2 * at + 1), seconds(30));
            assert_eq!(pace, Pace::Fine);
        }
        let stalled = Pace::Stalled(seconds(30));
        assert_eq!(watch.look(0, 5, true, seconds(30), seconds(30)), stalled);
    }

    #[test]
    fn only_standing_with_work_is_a_stall_and_it_is_begun_anew_now_and_then() {
        let mut watch = Watch::default();
        let seconds = Duration::from_secs;
        let mut look =
            |position, is_behind, at| watch.look(0, position, is_behind, seconds(at), seconds(30));
        assert_eq!(look(5, true, 0), Pace::Fine);
        assert_eq!(look(5, true, 29), Pace::Fine);
        assert_eq!(look(5, true, 30), Pace::Restart(seconds(30)));
        assert_eq!(look(5, true, 31), Pace::Stalled(seconds(31)));
        assert_eq!(look(5, true, 60), Pace::Restart(seconds(60)));
        assert_eq!(look(6, true, 61), Pace::Fine);
        assert_eq!(look(6, false, 99), Pace::Fine);
        assert_eq!(look(6, true, 100), Pace::Fine);
        assert_eq!(look(6, true, 128), Pace::Fine);
        assert_eq!(look(6, true, 129), Pace::Restart(seconds(30)));
    }
}
