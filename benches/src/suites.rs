//! The named suites: what is run on a database each, and what it is compared with.

use clap::ValueEnum;
use millrace_generator::{IdVersion, Skew};

use crate::case::{Case, Parameters};

/// What is done with one database.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Measures one drain.
    Drain(Case),
    /// Measures several in a ledger that grows in between: their rows before rise. Rows of many
    /// millions are loaded once that way.
    Grow(Vec<Case>),
    /// Drains, then folds read models from nothing.
    Rebuild(Case),
}

/// A set of plans with one question.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Suite {
    /// Uniform and Zipf 1.0, and what background models, limits and random ids add.
    Canonical,
    /// Uniform and Zipf 1.0.
    Drain,
    /// Zipf 2.0 and uniform, with and without limits.
    Hot,
    /// Whether the cost stays flat: partitions, replicas, accounts, limits.
    Flat,
    /// Whether it stays flat in a ledger that grows to 20 times --count, with the --ids that are said.
    Growth,
    /// How quickly read models are folded from the ledger.
    Rebuild,
}

/// Rows before each measured drain of a ledger that grows, and how many are measured, in --count: the first million
/// of an empty ledger, and four after 5, 10 and 20 for a count of a million.
///
/// Each drain begins with a checkpoint, after which each page goes to the log whole when it is changed first. Of a
/// grown index with random ids that is nearly every page: a drain of a million would be charged with all that a
/// server in operation spreads over the transactions between two checkpoints, some three million with `max_wal_size` of 4 GB.
const GROWTH: [(u64, u64); 4] = [(0, 1), (5, 4), (10, 4), (20, 4)];

impl Plan {
    /// What a person reads while it runs.
    pub fn name(&self) -> String {
        match self {
            Self::Drain(case) => case.name.clone(),
            Self::Grow(cases) => format!("{} steps of growth", cases.len()),
            Self::Rebuild(case) => format!("read models, {}", case.name),
        }
    }
}

impl Suite {
    /// What to run, with `base` for everything that the suite does not vary.
    pub fn plans(self, base: &Parameters) -> Vec<Plan> {
        match self {
            Self::Canonical => drains(canonical(base)),
            Self::Drain => drains(drain(base)),
            Self::Hot => drains(hot(base)),
            Self::Flat => drains(flat(base)),
            Self::Growth => vec![growth(base)],
            Self::Rebuild => vec![Plan::Rebuild(Case::of(base))],
        }
    }
}

fn drains(cases: Vec<Case>) -> Vec<Plan> {
    cases.into_iter().map(Plan::Drain).collect()
}

fn vary(base: &Parameters, change: impl FnOnce(&mut Parameters)) -> Case {
    let mut parameters = base.clone();
    change(&mut parameters);
    Case::of(&parameters)
}

fn canonical(base: &Parameters) -> Vec<Case> {
    let uniform = Case::of(base);
    let funded = vary(base, |p| p.funded = true);
    vec![
        vary(base, |p| p.skew = Skew::Zipf(1.0)).compared_with(&uniform),
        vary(base, |p| p.project = true).compared_with(&uniform),
        vary(base, |p| p.ids = IdVersion::V4).compared_with(&uniform),
        vary(base, |p| p.limit = Some(0)).compared_with(&funded),
        funded.compared_with(&uniform),
        uniform,
    ]
}

fn drain(base: &Parameters) -> Vec<Case> {
    let uniform = Case::of(base);
    let zipf = vary(base, |p| p.skew = Skew::Zipf(1.0)).compared_with(&uniform);
    vec![uniform, zipf]
}

/// Funded with and without limits, so that nothing but the limit differs.
fn hot(base: &Parameters) -> Vec<Case> {
    let hot = Skew::Zipf(2.0);
    let mut cases = Vec::new();
    for limit in [None, Some(0)] {
        let uniform = vary(base, |p| (p.funded, p.limit) = (true, limit));
        let zipf = vary(&uniform.parameters, |p| p.skew = hot).compared_with(&uniform);
        cases.extend([uniform, zipf]);
    }
    cases
}

/// One thing at a time, from one base. Funded, so that nothing but the limit differs where there is one.
fn flat(base: &Parameters) -> Vec<Case> {
    let funded = Parameters {
        funded: true,
        ..base.clone()
    };
    let all = Case::of(&funded).named("base");
    let with = |change: &dyn Fn(&mut Parameters)| vary(&funded, |p| change(p));
    let mut cases = vec![
        all.clone(),
        with(&|p| p.limit = Some(0))
            .named("limits on")
            .compared_with(&all),
    ];
    for partitions in [1, 4, 48, 96] {
        let case = with(&|p| p.partitions = partitions);
        cases.push(
            case.named(format!("partitions {partitions}"))
                .compared_with(&all),
        );
    }
    for accounts in [10_000, 300_000, 1_000_000] {
        let case = with(&|p| p.accounts = accounts);
        cases.push(
            case.named(format!("accounts {accounts}"))
                .compared_with(&all),
        );
    }
    let replicas = |replicas| {
        with(&|p| (p.replicas, p.lanes) = (replicas, 1)).named(format!("{replicas} × 1 lanes"))
    };
    let one = replicas(1);
    cases.push(one.clone().compared_with(&all));
    cases.extend([2, 4, 8].map(|n| replicas(n).compared_with(&one)));
    cases
}

/// A ledger that grows, each step compared with the first.
fn growth(base: &Parameters) -> Plan {
    let ids = base.ids;
    let step = |place: u64, (rows, measured): (u64, u64)| {
        let case = vary(base, |p| {
            (p.existing_rows, p.count) = (rows * base.count, measured * base.count);
            // The steps share a ledger: none may repeat another's random ids.
            p.seed += place;
        });
        let rows = case.parameters.existing_rows;
        case.named(format!("{ids} ids, {rows} rows before"))
    };
    let steps: Vec<_> = (0..).zip(GROWTH).map(|(n, sizes)| step(n, sizes)).collect();
    let first = steps[0].clone();
    let compared = |(place, case): (usize, Case)| match place {
        0 => case,
        _ => case.compared_with(&first),
    };
    Plan::Grow(steps.into_iter().enumerate().map(compared).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        base: Parameters,
    }

    fn cases(suite: Suite) -> Vec<Case> {
        let base = Flags::parse_from(["bench"]).base;
        let plans = suite.plans(&base).into_iter();
        plans
            .flat_map(|plan| match plan {
                Plan::Drain(case) | Plan::Rebuild(case) => vec![case],
                Plan::Grow(cases) => cases,
            })
            .collect()
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_is_compared_with_another() {
        for suite in Suite::value_variants() {
            let cases = cases(*suite);
            let names: HashSet<_> = cases.iter().map(|case| case.name.as_str()).collect();
            assert_eq!(names.len(), cases.len(), "{suite:?}");
            for case in &cases {
                let other = case.compared_with.as_deref();
                let is_there = other.is_none_or(|name| names.contains(name) && name != case.name);
                assert!(is_there, "{suite:?}: {case:?}");
            }
        }
    }

    #[test]
    fn a_ledger_only_grows_and_no_two_steps_share_a_seed() {
        let base = Flags::parse_from(["bench", "--count", "1000"]).base;
        let Plan::Grow(steps) = growth(&base) else {
            panic!("no growth");
        };
        let rows: Vec<_> = steps.iter().map(|s| s.parameters.existing_rows).collect();
        assert_eq!(rows, [0, 5_000, 10_000, 20_000]);
        let measured: Vec<_> = steps.iter().map(|s| s.parameters.count).collect();
        assert_eq!(measured, [1_000, 4_000, 4_000, 4_000]);
        let seeds: HashSet<_> = steps.iter().map(|s| s.parameters.seed).collect();
        assert_eq!(seeds.len(), steps.len());
        for pair in steps.windows(2) {
            let [earlier, later] = [&pair[0].parameters, &pair[1].parameters];
            assert!(earlier.existing_rows + earlier.count <= later.existing_rows);
        }
    }
}
