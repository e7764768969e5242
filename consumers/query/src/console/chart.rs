//! Drawings as SVG, in the page's own type and colours, light and dark, at any width: the lines stretch
//! with the page, the letters do not, which drawing crates cannot do without a script.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::Date;
use maud::{Markup, html};

use crate::console::text;
use crate::store::accounts::Point;
use crate::store::overview::Interval;

/// Width and height of the stretched plane that lines are drawn on.
const PLANE: f64 = 1_000.0;
/// About how many steps an axis has.
const STEPS: i128 = 4;

/// A balance over time, as a line of steps. Nothing when no point has a time.
pub fn balance(points: &[Point], exponent: Option<i32>, label: &str) -> Option<Markup> {
    let points: Vec<_> = points
        .iter()
        .filter_map(|point| Some((micros(&point.at)?, point.balance.0)))
        .collect();
    let (&first, &last) = (points.first()?, points.last()?);
    let values = || points.iter().map(|(_, balance)| *balance);
    let axis = Axis::over(values().min()?, values().max()?);
    let line = steps(&points, &axis);
    let ground = axis.down(0).clamp(0.0, 1.0) * PLANE;
    let area = format!("{line}V{ground:.1}H0Z");
    Some(html! {
        figure.chart {
            div.plane {
                svg.drawing role="img" aria-label=(label) {
                    (grid(&axis))
                    svg viewBox={ "0 0 " (PLANE) " " (PLANE) } preserveAspectRatio="none" {
                        path.area d=(area) {}
                        path.line d=(line) {}
                    }
                }
                (scale(&axis, |tick| text::amount(tick, exponent)))
            }
            figcaption.ends { span { (moment(first.0)) } span { (moment(last.0)) } }
        }
    })
}

fn grid(axis: &Axis) -> Markup {
    html! {
        @for tick in &axis.ticks {
            @let y = format!("{:.2}%", axis.down(*tick) * 100.0);
            line.grid.zero[*tick == 0] x1="0" x2="100%" y1=(y) y2=(y) {}
        }
    }
}

/// What the lines of the grid mean, beside it.
fn scale(axis: &Axis, name: impl Fn(i128) -> String) -> Markup {
    let names: Vec<_> = axis
        .ticks
        .iter()
        .map(|tick| (axis.down(*tick), name(*tick)))
        .collect();
    let longest = names.iter().map(|(_, name)| name.chars().count()).max();
    html! {
        // A digit is about 0.62 em wide.
        svg.scale width={ (longest.unwrap_or(0) * 62 / 100 + 1) "em" } aria-hidden="true" {
            @for (down, name) in &names {
                text x="100%" y={ (format!("{:.2}", down * 100.0)) "%" } dy="0.35em" text-anchor="end" { (name) }
            }
        }
    }
}

fn steps(points: &[(i64, i128)], axis: &Axis) -> String {
    let (from, until) = (points[0].0, points[points.len() - 1].0);
    let across = |at: i64| ratio(i128::from(at - from), i128::from((until - from).max(1))) * PLANE;
    let down = |balance| axis.down(balance) * PLANE;
    let mut path = format!("M0 {:.1}", down(points[0].1));
    for (at, balance) in points {
        let _ = write!(path, "H{:.1}V{:.1}", across(*at), down(*balance));
    }
    let _ = write!(path, "H{PLANE}");
    path
}

fn micros(at: &str) -> Option<i64> {
    let day = || Some(at.parse::<Date>().ok()?.in_tz("UTC").ok()?.timestamp());
    let time = at.parse::<Timestamp>().ok().or_else(day)?;
    Some(time.as_microsecond())
}

/// As exact as a reader needs: the day of a day, else to the second.
fn moment(micros: i64) -> Markup {
    let time = Timestamp::from_microsecond(micros).unwrap_or_default();
    let text = time.to_string();
    if let Some(day) = text.strip_suffix("T00:00:00Z") {
        html! { time datetime=(day) { (day) } }
    } else {
        html! { (text::time(&text)) " UTC" }
    }
}

/// Records a second over the last intervals, by verdict from the bottom up: posted, duplicate, rejected,
/// then parked and discarded.
pub fn throughput(intervals: &[Interval], seconds: i32, count: i32) -> Markup {
    let rate = |records: i64| records / i64::from(seconds);
    let most = intervals.iter().map(|i| rate(i.records)).max();
    let axis = Axis::over(0, i128::from(most.unwrap_or(0).max(1)));
    let width = 100.0 / f64::from(count);
    let minutes = seconds * count / 60;
    let label = format!(
        "Records applied per second over the last {minutes} minutes, at most {}",
        text::number(most.unwrap_or(0))
    );
    let percent = |rate: i64| axis.up(rate.into()) * 100.0;
    html! {
        figure.chart {
            div.plane.low {
                svg.drawing role="img" aria-label=(label) {
                    (grid(&axis))
                    @for interval in intervals.iter().filter(|i| (0..count).contains(&i.ago)) {
                        @let x = format!("{:.3}%", f64::from(count - 1 - interval.ago) * width);
                        @let wide = format!("{:.3}%", width * 0.8);
                        g {
                            title { (spoken(interval, seconds)) }
                            @for (class, from, to) in stack(interval) {
                                (bar(class, &x, &wide, percent(rate(from)), percent(rate(to))))
                            }
                        }
                    }
                }
                (scale(&axis, |tick| format!("{}/s", text::number(tick))))
            }
            figcaption.ends { span { (minutes) " min ago" } span { "now" } }
        }
    }
}

/// The verdicts of an interval one on the other: class, from, to.
fn stack(interval: &Interval) -> [(&'static str, i64, i64); 4] {
    let posted = interval.posted;
    let known = posted + interval.duplicate;
    let refused = known + interval.rejected;
    [
        ("posted", 0, posted),
        ("duplicate", posted, known),
        ("rejected", known, refused),
        ("parked", refused, interval.records.max(refused)),
    ]
}

fn spoken(interval: &Interval, seconds: i32) -> String {
    let rate = |records: i64| text::number(records / i64::from(seconds));
    format!(
        "{} s ago: {}/s, of them {} posted, {} duplicate, {} rejected",
        interval.ago * seconds,
        rate(interval.records),
        rate(interval.posted),
        rate(interval.duplicate),
        rate(interval.rejected)
    )
}

/// From and to as percent above the bottom.
fn bar(class: &str, x: &str, width: &str, from: f64, to: f64) -> Markup {
    html! {
        rect class=(class) x=(x) width=(width) y={ (format!("{:.2}", 100.0 - to)) "%" } height={ (format!("{:.2}", to - from)) "%" } {}
    }
}

/// Shares of a whole side by side, each with the class of its colour.
pub fn shares(label: &str, parts: &[(&'static str, i128)]) -> Markup {
    let total = parts.iter().map(|(_, count)| count).sum::<i128>().max(1);
    let mut before = 0;
    html! {
        svg.shares role="img" aria-label=(label) {
            @for (class, count) in parts {
                rect class=(class) y="0" height="100%" x={ (percent(before, total)) "%" } width={ (percent(*count, total)) "%" } {}
                @let () = before += count;
            }
        }
    }
}

fn percent(part: i128, whole: i128) -> String {
    format!("{:.3}", ratio(part, whole) * 100.0)
}

/// Exact enough to draw: far finer than a pixel.
#[expect(clippy::cast_precision_loss, reason = "a place on the screen")]
fn ratio(part: i128, whole: i128) -> f64 {
    part as f64 / whole as f64
}

/// An upright axis with round numbers.
struct Axis {
    ticks: Vec<i128>,
}

impl Axis {
    /// Round numbers around both values, at least two.
    fn over(min: i128, max: i128) -> Self {
        let step = round_up((max - min) / STEPS);
        let first = min.div_euclid(step);
        let last = -(-max).div_euclid(step);
        let last = last.max(first + 1);
        Self {
            ticks: (first..=last).map(|index| index * step).collect(),
        }
    }

    /// Where a value is, from 0 at the bottom to 1 at the top.
    fn up(&self, value: i128) -> f64 {
        let (bottom, top) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        ratio(value - bottom, top - bottom)
    }

    /// The same from the top.
    fn down(&self, value: i128) -> f64 {
        1.0 - self.up(value)
    }
}

/// The next of 1, 2, 5, 10, 20, 50, ..
fn round_up(at_least: i128) -> i128 {
    let mut unit: i128 = 1;
    loop {
        for step in [unit, 2 * unit, 5 * unit] {
            if step >= at_least {
                return step;
            }
        }
        unit *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Whole;

    #[test]
    fn axes_have_round_numbers_around_the_values() {
        for (min, max, ticks) in [
            (0, 0, &[0, 1][..]),
            (0, 1, &[0, 1]),
            (-3, 5, &[-4, -2, 0, 2, 4, 6]),
            (100, 100, &[100, 101]),
            (1_234, 5_678, &[0, 2_000, 4_000, 6_000]),
            (-950, -120, &[-1_000, -500, 0]),
        ] {
            assert_eq!(Axis::over(min, max).ticks, ticks, "{min} {max}");
        }
        let huge = Axis::over(i128::from(i64::MIN) * 1_000, i128::from(i64::MAX) * 1_000);
        assert!(huge.ticks.len() <= 7 && huge.up(0) > 0.4 && huge.up(0) < 0.6);
    }

    fn point(at: &str, balance: i128) -> Point {
        Point {
            at: at.into(),
            balance: Whole(balance),
        }
    }

    #[test]
    fn a_balance_stays_until_it_changes() {
        let points = [(0, 0), (50, 100), (100, 40)];
        assert_eq!(
            steps(&points, &Axis::over(0, 100)),
            "M0 1000.0H0.0V1000.0H500.0V0.0H1000.0V600.0H1000"
        );
    }

    #[test]
    fn one_point_is_a_line_and_none_is_nothing() {
        assert!(balance(&[], Some(2), "x").is_none());
        assert!(balance(&[point("nonsense", 1)], Some(2), "x").is_none());
        let drawn = balance(&[point("2026-01-31", -5)], Some(2), "x");
        let drawn = drawn.unwrap().into_string();
        assert!(
            drawn.contains("−0.05") && drawn.contains(">2026-01-31<"),
            "{drawn}"
        );
        let drawn = balance(&[point("2026-01-31T10:00:00.5Z", 1)], Some(0), "<x>");
        let drawn = drawn.unwrap().into_string();
        assert!(
            drawn.contains("2026-01-31 10:00:00") && drawn.contains("&lt;x&gt;"),
            "{drawn}"
        );
    }

    #[test]
    fn verdicts_are_stacked() {
        let interval = Interval {
            ago: 1,
            records: 100,
            posted: 50,
            duplicate: 30,
            rejected: 15,
        };
        let heights = stack(&interval).map(|(_, from, to)| to - from);
        assert_eq!(heights, [50, 30, 15, 5]);
        let drawn = throughput(&[interval], 5, 60).into_string();
        assert!(
            drawn.contains("5 s ago: 20/s, of them 10 posted, 6 duplicate, 3 rejected"),
            "{drawn}"
        );
    }

    #[test]
    fn shares_fill_the_whole() {
        let drawn = shares("x", &[("a", 1), ("b", 3)]).into_string();
        assert!(drawn.contains(r#"x="25.000%" width="75.000%""#), "{drawn}");
        let none = shares("x", &[("a", 0)]).into_string();
        assert!(none.contains(r#"width="0.000%""#), "{none}");
    }
}
