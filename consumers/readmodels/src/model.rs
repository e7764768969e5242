//! The read models of this binary, each one SQL file.
//!
//! A file begins with its header (`-- model:`, `-- mode:`, `-- cost:`, then prose) and has three
//! sections, in this order:
//!
//! - `-- table`: creates the model's table, in slices keyed by (key.., `partition`);
//! - `-- view`: creates its view in schema `reports`, with a comment on every column;
//! - `-- fold`: `insert into <model> as t .. select .. from posted .. on conflict .. do update`; the
//!   conflict's clause is the last, so that a fold can go without.
//!
//! `posted` stands for the posted transactions of the ranges that are folded. Names are not
//! qualified: the connection's `search_path` is `millrace`, or, when the slices are verified,
//! `pg_temp, millrace`.

use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

/// The files, in the order in which models are installed and folded.
const FILES: [&str; 3] = [
    include_str!("../models/daily_totals.sql"),
    include_str!("../models/account_days.sql"),
    include_str!("../models/flows.sql"),
];

/// The ranges of a fold that are named.
const NAMED: &str = "with r as (
    select * from unnest($1::int[], $2::bigint[], $3::bigint[]) as r (partition, from_seq, next_seq)
)";

/// The ranges from where a model $1 is up to the ends $2, $3 of partitions, of those that are not in trouble: nobody
/// else has them in hand, no fold has failed there, no more than $4 is to be folded. Their positions move.
const MOVED: &str = "with found as (
    select m.partition, m.seq, e.next_seq
    from unnest($2::int[], $3::bigint[]) as e (partition, next_seq)
    join read_model_positions m on m.model = $1 and m.partition = e.partition
    where m.error is null and e.next_seq - m.seq between 0 and $4
    for update of m skip locked
), r as (
    update read_model_positions p set seq = f.next_seq, updated_at = now()
    from found f
    where p.model = $1 and p.partition = f.partition
    returning p.partition, f.seq as from_seq, f.next_seq
)";

/// What `posted` stands for in a fold of ranges `r`. `offset 0` is a fence: each range is one scan of the primary
/// key, whatever the planner believes about the size of the ledger.
const POSTED: &str = ", posted as (
    select l.*
    from r cross join lateral (
        select * from ledger
        where ledger.partition = r.partition and ledger.seq >= r.from_seq and ledger.seq < r.next_seq
            and ledger.verdict = 0
        offset 0
    ) l
)
";

/// Where the last clause of a fold begins.
const ON_CONFLICT: &str = "\non conflict";

/// Who folds a model as long as it is not behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The lane, inside its batch: for models that touch few rows per batch.
    Inline,
    /// Background workers.
    Background,
}

impl Mode {
    /// The name in the file and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Background => "background",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Inline, Self::Background]
            .into_iter()
            .find(|mode| mode.as_str() == name)
    }
}

/// A read model.
#[derive(Debug)]
pub struct Model {
    /// The name of the model, of its table in `millrace` and of its view in `reports`.
    pub name: &'static str,
    /// Who folds it.
    pub mode: Mode,
    /// What folding was measured to cost, for people.
    pub cost: &'static str,
    pub(crate) table: &'static str,
    pub(crate) view: &'static str,
    /// $1 partitions, $2 and $3 the ranges of `seq`: from, and up to but without.
    pub(crate) fold: SqlStr,
    /// The same for ranges that begin at `seq` 0, where no slice can be there yet. Each slice is then
    /// inserted without being looked for: a quarter to a third less.
    pub(crate) first_fold: SqlStr,
    /// $1 the model, $2 and $3 the ends of partitions, $4 the most to fold of each: moves the positions and folds
    /// up to there. Gives the numbers of partitions, `seq` and slices.
    pub(crate) fold_up_to: SqlStr,
}

/// What is wrong with a model's file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("the header has no line `-- {0}: ..`")]
    Header(&'static str),
    #[error("`{0}` is not a name of lower-case letters and underscores")]
    Name(&'static str),
    #[error("mode `{0}` is neither inline nor background")]
    Mode(&'static str),
    #[error("no line `-- {0}` in its place: the sections are table, view, fold, in this order")]
    Section(&'static str),
    #[error("section {section} has no `{wanted}`")]
    Content {
        section: &'static str,
        wanted: String,
    },
}

/// Every read model of this binary.
pub fn all() -> &'static [Model] {
    static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
        let models: Result<_, _> = FILES.into_iter().map(parse).collect();
        models.expect("the embedded files parse: there is a test for it")
    });
    &MODELS
}

fn parse(file: &'static str) -> Result<Model, ParseError> {
    let (header, rest) = cut(file, "table")?;
    let (table, rest) = cut(rest, "view")?;
    let (view, fold) = cut(rest, "fold")?;
    let name = value(header, "model")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        return Err(ParseError::Name(name));
    }
    let mode = value(header, "mode")?;
    let mode = Mode::from_name(mode).ok_or(ParseError::Mode(mode))?;
    let cost = value(header, "cost")?;
    let fold = fold.trim_end().trim_end_matches(';');
    for (section, text, wanted) in [
        (
            "table",
            table,
            format!("create table if not exists {name} ("),
        ),
        (
            "view",
            view,
            format!("create or replace view reports.{name} as"),
        ),
        ("fold", fold, format!("insert into {name} as t (")),
        ("fold", fold, "from posted".into()),
        ("fold", fold, ON_CONFLICT.into()),
    ] {
        if !text.contains(&wanted) {
            return Err(ParseError::Content { section, wanted });
        }
    }
    let (first_fold, _) = fold.split_once(ON_CONFLICT).unwrap_or((fold, ""));
    let fold_up_to = [
        MOVED,
        POSTED,
        ", folded as (\n",
        fold,
        "\nreturning 1)
        select count(*), coalesce(sum(next_seq - from_seq), 0)::bigint, (select count(*) from folded) from r",
    ];
    Ok(Model {
        name,
        mode,
        cost,
        table,
        view,
        fold: AssertSqlSafe([NAMED, POSTED, fold].concat()).into_sql_str(),
        first_fold: AssertSqlSafe([NAMED, POSTED, first_fold].concat()).into_sql_str(),
        fold_up_to: AssertSqlSafe(fold_up_to.concat()).into_sql_str(),
    })
}

/// What stands before and after the line `-- section`.
fn cut(
    text: &'static str,
    section: &'static str,
) -> Result<(&'static str, &'static str), ParseError> {
    text.split_once(&format!("\n-- {section}\n"))
        .ok_or(ParseError::Section(section))
}

/// The header's value of a key.
fn value(header: &'static str, key: &'static str) -> Result<&'static str, ParseError> {
    let begin = format!("-- {key}: ");
    header
        .lines()
        .find_map(|line| line.strip_prefix(&begin))
        .map(str::trim)
        .ok_or(ParseError::Header(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "-- model: sums\n-- mode: inline\n-- cost: 1 µs\n-- Prose: of any kind.\n\n\
        -- table\ncreate table if not exists sums (n int);\n\n\
        -- view\ncreate or replace view reports.sums as select 1;\n\n\
        -- fold\ninsert into sums as t (n)\nselect 1 from posted\non conflict do nothing;\n";

    #[test]
    fn a_file_is_cut_into_its_sections() {
        let model = parse(GOOD).unwrap();
        assert_eq!(
            (model.name, model.mode, model.cost),
            ("sums", Mode::Inline, "1 µs")
        );
        assert_eq!(
            model.table.trim(),
            "create table if not exists sums (n int);"
        );
        assert_eq!(
            model.view.trim(),
            "create or replace view reports.sums as select 1;"
        );
        let fold = model.fold.as_str();
        assert!(fold.starts_with("with r as ("), "{fold}");
        assert!(fold.ends_with("on conflict do nothing"), "{fold}");
        let first_fold = model.first_fold.as_str();
        assert_eq!(
            Some(first_fold),
            fold.strip_suffix("\non conflict do nothing")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let content = |section, wanted: &str| ParseError::Content {
            section,
            wanted: wanted.into(),
        };
        for (from, to, expected) in [
            ("-- model: sums\n", "", ParseError::Header("model")),
            ("-- cost: 1 µs\n", "", ParseError::Header("cost")),
            ("model: sums", "model: Sums", ParseError::Name("Sums")),
            ("model: sums", "model: ", ParseError::Name("")),
            ("inline", "often", ParseError::Mode("often")),
            ("-- table\n", "", ParseError::Section("table")),
            ("-- view\n", "-- fold\n", ParseError::Section("view")),
            ("-- fold\n", "", ParseError::Section("fold")),
            (
                "exists sums",
                "exists other",
                content("table", "create table if not exists sums ("),
            ),
            (
                "reports.sums",
                "reports.other",
                content("view", "create or replace view reports.sums as"),
            ),
            (
                "into sums",
                "into other",
                content("fold", "insert into sums as t ("),
            ),
            ("from posted", "from ledger", content("fold", "from posted")),
            ("on conflict", "returning", content("fold", ON_CONFLICT)),
        ] {
            let file: &'static str = Box::leak(GOOD.replacen(from, to, 1).into_boxed_str());
            assert_eq!(parse(file).unwrap_err(), expected, "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn the_embedded_files_parse() {
        let modes: Vec<_> = all().iter().map(|model| (model.name, model.mode)).collect();
        assert_eq!(
            modes,
            [
                ("daily_totals", Mode::Inline),
                ("account_days", Mode::Background),
                ("flows", Mode::Background),
            ]
        );
    }
}
