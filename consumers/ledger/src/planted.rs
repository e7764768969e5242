//! Deliberate bugs, to show that the simulation catches them. Without the feature `planted-bugs`, which no
//! build has by default, [`has`] is a constant and nothing of this is in the program.

/// Defines the bugs once: variant, name.
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident, $name:literal;)*) => {
        /// A deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug { $($(#[$doc])* $bug,)* }

        impl Bug {
            /// Every bug.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    /// The broker is told of a batch before the database has committed it.
    OffsetFirst, "offset-first";
    /// A batch is applied wherever the locked position is.
    SkipPositionCheck, "skip-position-check";
    /// Positions are read without a lock.
    NoLock, "no-lock";
    /// A parked record does not hold back its key in later batches.
    ParkWithoutHold, "park-without-hold";
    /// The position is the last offset that was applied, not the one after it.
    MaxOffset, "max-offset";
    /// A commit that was answered with an error is taken for done.
    ReuseVerdicts, "reuse-verdicts";
    /// After a failure the lane goes on without checking its position again.
    NoRecheck, "no-recheck";
    /// Funds are remembered over rollbacks, rebalances and other owners' batches.
    KeepFunds, "keep-funds";
    /// Policies are remembered whatever the version says.
    IgnorePolicyVersion, "ignore-policy-version";
    /// A first record beyond the position is believed at once.
    BelieveHole, "believe-hole";
    /// An empty tail is believed without a seek.
    BelieveTail, "believe-tail";
    /// The position is taken from the broker's hint.
    ReadFromHint, "read-from-hint";
    /// Two records of one id in one batch are both applied.
    NoDedupe, "no-dedupe";
    /// Known ids are not looked up.
    ForgetIds, "forget-ids";
    /// The log is not recognised by its last applied record.
    NoAnchor, "no-anchor";
    /// Nobody asks whether the database had been further.
    IgnoreHint, "ignore-hint";
    /// Partitions are not checked again behind a new connection.
    TrustConnection, "trust-connection";
    /// A replay takes the chosen records without the earlier ones of their keys.
    ReplayOvertakes, "replay-overtakes";
}

#[cfg(feature = "planted-bugs")]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        /// A simulation runs on one thread, and others beside it with other bugs.
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use chosen::plant;

#[cfg(feature = "planted-bugs")]
pub(crate) use chosen::has;

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
