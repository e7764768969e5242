//! Which partitions of which model a background worker folds next, and when: pure.
//!
//! One fold takes partitions of one model together. What makes folding cheap is a long sorted run,
//! whether it comes from one partition or from twelve.

use std::collections::BTreeSet;

use crate::inline::INLINE_GAP_MAX;
use crate::model::{Mode, Model};
use crate::positions::Lag;

/// One fold takes at most this many `seq`: a few seconds of work; longer runs are hardly cheaper. A background model
/// that is as far behind is caught up without a pause.
pub(crate) const FOLD_SEQS_MAX: i64 = 300_000;

/// One fold of what comes in steadily takes at most this many, but always a whole partition: some 200 ms, for so long
/// it competes with the ledger for processors, and that is what the slowest transactions wait for.
const STEADY_SEQS_MAX: i64 = 16_000;

/// A background model is left alone for this long after a fold: a trickle costs one small fold a second.
const PACE_MIN_S: f64 = 1.0;

/// The more waits, the longer it may wait, for longer runs are cheaper: a run of 5,000 costs several times as much for
/// each as one of 50,000. As long again for so many `seq`: at 1,000 a second that makes a fold every 1.25 s, at 2,500
/// every 2 s.
const PACE_SEQS: i32 = 5_000;

/// Beyond, little more is saved, and who waits for what he wrote (`at_least`) waits for it: at most ten seconds in all.
const PACE_MAX_S: f64 = 5.0;

/// An inline model whose partition is behind and has not moved for this long is not being served by
/// its lane.
const INLINE_GRACE_S: f64 = 2.0;

/// Partitions of a model to be folded together.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) model: &'static Model,
    pub(crate) partitions: Vec<i32>,
    /// How much there is to fold, more than one fold takes if need be.
    pub(crate) seqs: i64,
    /// Whether it failed the last time.
    pub(crate) is_retry: bool,
    pub(crate) haste: Haste,
}

/// How a model is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// What comes in: a little at a time, with rests in between.
    Steady,
    /// What is far behind: as fast as it goes.
    CatchingUp,
}

/// What a worker keeps from one look at the positions to the next.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    /// Models that were far behind and are not yet done.
    catching_up: BTreeSet<&'static str>,
}

impl Planner {
    /// What there is to do now, the most first. A worker takes the first claim that nobody else has.
    pub(crate) fn claims(&mut self, models: &'static [Model], lags: &[Lag]) -> Vec<Claim> {
        let mut claims = Vec::new();
        for model in models {
            let behind = lags
                .iter()
                .filter(|lag| lag.model == model.name && lag.seqs() > 0);
            let (failed, healthy): (Vec<&Lag>, Vec<_>) =
                behind.partition(|lag| lag.error.is_some());
            let haste = self.haste(model, healthy.iter().map(|lag| lag.seqs()).sum());
            claims.extend(runs(model, haste, wanted(model.mode, haste, healthy)));
            // Each alone, so that it takes nobody with it.
            claims.extend(failed.into_iter().filter(|lag| lag.retry_due).map(|lag| {
                let mut claim = Claim::new(model, haste, lag);
                claim.is_retry = true;
                claim
            }));
        }
        claims.sort_by_key(|claim| std::cmp::Reverse(claim.seqs));
        claims
    }

    /// A model that was far behind is caught up to the end, and not only to where it is no longer far behind; an inline
    /// one is the lanes' again as soon as it can be.
    fn haste(&mut self, model: &'static Model, seqs: i64) -> Haste {
        if model.mode == Mode::Inline {
            return Haste::CatchingUp;
        }
        if seqs >= FOLD_SEQS_MAX {
            self.catching_up.insert(model.name);
        } else if seqs <= STEADY_SEQS_MAX {
            self.catching_up.remove(model.name);
        }
        if self.catching_up.contains(model.name) {
            Haste::CatchingUp
        } else {
            Haste::Steady
        }
    }
}

/// Those of the partitions that lag behind whose time has come.
fn wanted(mode: Mode, haste: Haste, mut behind: Vec<&Lag>) -> Vec<&Lag> {
    match (mode, haste) {
        (Mode::Inline, _) => {
            behind.retain(|lag| lag.seqs() > INLINE_GAP_MAX || lag.idle_s >= INLINE_GRACE_S);
        }
        (Mode::Background, Haste::CatchingUp) => {}
        (Mode::Background, Haste::Steady) => {
            let pace_s = pace_s(behind.iter().map(|lag| lag.seqs()).sum());
            let is_any_due = behind.iter().any(|lag| lag.idle_s >= pace_s);
            // Others ride along, but not those that have just been folded.
            behind.retain(|lag| is_any_due && lag.idle_s >= pace_s / 2.0);
        }
    }
    behind
}

/// How long after a fold so much may wait.
fn pace_s(seqs: i64) -> f64 {
    let waiting = i32::try_from(seqs.min(FOLD_SEQS_MAX)).map_or(f64::MAX, f64::from);
    let more = waiting / f64::from(PACE_SEQS);
    (PACE_MIN_S + more).min(PACE_MAX_S)
}

/// Packs partitions into runs of about the length that suits, the largest first.
fn runs(model: &'static Model, haste: Haste, mut behind: Vec<&Lag>) -> Vec<Claim> {
    let seqs_max = match haste {
        Haste::Steady => STEADY_SEQS_MAX,
        Haste::CatchingUp => FOLD_SEQS_MAX,
    };
    behind.sort_by_key(|lag| (std::cmp::Reverse(lag.seqs()), lag.partition));
    let mut runs: Vec<Claim> = Vec::new();
    for lag in behind {
        match runs.last_mut() {
            Some(run) if run.seqs + lag.seqs() <= seqs_max => {
                run.partitions.push(lag.partition);
                run.seqs += lag.seqs();
            }
            _ => runs.push(Claim::new(model, haste, lag)),
        }
    }
    runs
}

impl Claim {
    fn new(model: &'static Model, haste: Haste, lag: &Lag) -> Self {
        Self {
            model,
            partitions: vec![lag.partition],
            seqs: lag.seqs(),
            is_retry: false,
            haste,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::all;

    fn lag(model: &str, partition: i32, seqs: i64, idle_s: f64) -> Lag {
        Lag {
            model: model.into(),
            partition,
            seq: 7,
            next_seq: 7 + seqs,
            idle_s,
            is_new: false,
            error: None,
            retry_due: true,
        }
    }

    fn plan(lags: &[Lag]) -> Vec<(&'static str, Vec<i32>)> {
        Planner::default()
            .claims(all(), lags)
            .into_iter()
            .map(|claim| (claim.model.name, claim.partitions))
            .collect()
    }

    #[test]
    fn background_models_wait_for_their_pace_or_a_whole_run() {
        for (seqs, idle_s, due) in [
            (0, 60.0, false),
            (1, 0.9, false),
            (1, 1.1, true),
            (5_000, 1.9, false),
            (5_000, 2.0, true),
            (FOLD_SEQS_MAX - 1, 4.9, false),
            (FOLD_SEQS_MAX - 1, 5.0, true),
            (FOLD_SEQS_MAX, 0.0, true),
        ] {
            let found = plan(&[lag("flows", 0, seqs, idle_s)]);
            assert_eq!(!found.is_empty(), due, "{seqs} {idle_s}");
        }
    }

    #[test]
    fn inline_models_are_left_to_their_lanes() {
        for (seqs, idle_s, due) in [
            (0, 60.0, false),
            (INLINE_GAP_MAX, 1.9, false),
            (INLINE_GAP_MAX + 1, 0.0, true),
            (1, 2.0, true),
        ] {
            let found = plan(&[lag("daily_totals", 0, seqs, idle_s)]);
            assert_eq!(!found.is_empty(), due, "{seqs} {idle_s}");
        }
    }

    #[test]
    fn when_one_partition_is_due_the_others_ride_along_but_not_the_youngest() {
        let lags = [
            lag("flows", 0, 5, 0.6),
            lag("flows", 1, 6, 1.5),
            lag("flows", 2, 0, 9.0),
            lag("flows", 3, 5, 0.1),
            lag("account_days", 0, 5, 0.1),
            lag("unknown", 0, 5, 9.0),
        ];
        assert_eq!(plan(&lags), [("flows", vec![1, 0])]);
    }

    #[test]
    fn runs_are_packed_and_the_largest_come_first() {
        let lags = [
            lag("account_days", 0, 10, 2.0),
            lag("flows", 0, 200_000, 2.0),
            lag("flows", 1, 1_000_000, 2.0),
            lag("flows", 2, 150_000, 2.0),
            lag("flows", 3, 100_000, 2.0),
        ];
        let expected = [
            ("flows", vec![1]),
            ("flows", vec![2, 3]),
            ("flows", vec![0]),
            ("account_days", vec![0]),
        ];
        assert_eq!(plan(&lags), expected);
    }

    #[test]
    fn what_comes_in_steadily_is_folded_a_little_at_a_time() {
        let lags: Vec<_> = (0..3).map(|p| lag("flows", p, 7_000, 9.0)).collect();
        assert_eq!(plan(&lags), [("flows", vec![0, 1]), ("flows", vec![2])]);
        let alone = lag("flows", 0, STEADY_SEQS_MAX * 2, 10.0);
        assert_eq!(plan(&[alone]), [("flows", vec![0])]);
    }

    #[test]
    fn a_model_that_was_far_behind_is_caught_up_to_the_end() {
        let mut planner = Planner::default();
        let mut haste = |seqs| {
            let claims = planner.claims(all(), &[lag("flows", 0, seqs, 0.0)]);
            claims.first().map(|claim| claim.haste)
        };
        assert_eq!(haste(STEADY_SEQS_MAX + 1), None, "it is not due");
        assert_eq!(haste(FOLD_SEQS_MAX), Some(Haste::CatchingUp));
        assert_eq!(haste(STEADY_SEQS_MAX + 1), Some(Haste::CatchingUp));
        assert_eq!(
            haste(STEADY_SEQS_MAX),
            None,
            "done: it waits for its time again"
        );
        assert_eq!(haste(STEADY_SEQS_MAX + 1), None);
    }

    #[test]
    fn a_partition_that_failed_is_tried_alone_when_its_time_has_come() {
        let failed = |partition, retry_due| Lag {
            error: Some("no such column".into()),
            retry_due,
            ..lag("flows", partition, 100, 9.0)
        };
        let lags = [
            failed(0, true),
            failed(1, false),
            lag("flows", 2, 5, 1.1),
            lag("flows", 3, 5, 1.1),
        ];
        assert_eq!(plan(&lags), [("flows", vec![0]), ("flows", vec![2, 3])]);
    }
}
