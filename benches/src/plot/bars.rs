//! Bars from left to right, a case each.

use plotters::chart::ChartBuilder;
use plotters::element::{EmptyElement, PathElement, Rectangle, Text};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, IntoFont as _};

use super::{Area, GRID, INK, TEXT_PX, colour, picture, short, text, width};
use crate::spread::Spread;

const WIDTH_PX: u32 = 900;
const BAR_PX: u32 = 24;
const GAP_PX: u32 = 12;

/// What is beyond the bars of a case: the axis and its label.
const FOOT_PX: u32 = 120;

/// Several cases, and what was measured of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// What it is about.
    pub title: String,
    /// What the axis says: the quantity and its unit.
    pub unit: String,
    /// Their names, from the top.
    pub cases: Vec<String>,
    /// The bars of each.
    pub measured: Vec<Measured>,
    /// The sum of each case, where the series are parts of it and stand one behind the other. Its spread is
    /// less than those of the parts together.
    pub sums: Option<Vec<Option<Spread>>>,
    /// What was wanted: a line across.
    pub wanted: Option<f64>,
}

/// A series: a value for each case, none where it was not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What the legend says.
    pub name: String,
    /// By case.
    pub values: Vec<Option<Spread>>,
}

/// A bar: the places of its case and of its series, from where to where, and what is written at its end.
struct Bar {
    case: usize,
    series: usize,
    from: f64,
    to: f64,
    end: Option<Spread>,
}

/// Draws them, first to last from the top.
pub fn bars(chart: &Bars) -> anyhow::Result<String> {
    let each = if chart.sums.is_some() {
        1
    } else {
        chart.measured.len()
    };
    let rows = u32::try_from(chart.cases.len())? * (u32::try_from(each)? * BAR_PX + GAP_PX);
    let names: Vec<_> = chart.measured.iter().map(|m| m.name.as_str()).collect();
    let size = (WIDTH_PX, rows + FOOT_PX);
    picture(size, &chart.title, &names, |area| draw(chart, area))
}

#[expect(clippy::cast_precision_loss, reason = "a few dozen cases")]
fn draw(chart: &Bars, area: &Area<'_>) -> anyhow::Result<()> {
    let all = placed(chart);
    let longest = ends(&all).map(|(_, end)| end.most).fold(0.0, f64::max);
    let right = longest.max(chart.wanted.unwrap_or(0.0)).max(1e-9) * 1.12;
    let bottom = chart.cases.len() as f64;
    let names = chart.cases.iter().map(|name| width(name)).max();
    let mut axes = ChartBuilder::on(area)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(names.unwrap_or(0) + 20)
        .build_cartesian_2d(0.0..right, bottom..0.0)?;
    axes.configure_mesh()
        .disable_y_mesh()
        .x_labels(8)
        .y_labels(0)
        .x_label_formatter(&|x| short(*x))
        .x_desc(chart.unit.as_str())
        .label_style(("sans-serif", TEXT_PX).into_font().color(&INK))
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .axis_style(INK)
        .draw()?;
    axes.draw_series((0..).zip(&chart.cases).map(|(place, name)| {
        let middle = (0.0, f64::from(place) + 0.5);
        EmptyElement::at(middle) + Text::new(name.clone(), (-8, 0), text(HPos::Right))
    }))?;
    for bar in &all {
        let (top, bottom) = heights(chart, bar);
        let corners = [(bar.from, top), (bar.to, bottom)];
        let filled = colour(bar.series).filled();
        axes.draw_series([Rectangle::new(corners, filled)])?;
    }
    for (bar, end) in ends(&all) {
        let (top, bottom) = heights(chart, bar);
        let (middle, tick) = (f64::midpoint(top, bottom), (bottom - top) / 5.0);
        if end.most > end.least {
            let across = |x| vec![(x, middle - tick), (x, middle + tick)];
            let between = vec![(end.least, middle), (end.most, middle)];
            let paths = [between, across(end.least), across(end.most)];
            axes.draw_series(paths.map(|path| PathElement::new(path, INK)))?;
        }
        let value = Text::new(short(end.median), (6, 0), text(HPos::Left));
        axes.draw_series([EmptyElement::at((end.most, middle)) + value])?;
    }
    if let Some(wanted) = chart.wanted {
        let across = vec![(wanted, 0.0), (wanted, bottom)];
        axes.draw_series([PathElement::new(across, INK.stroke_width(2))])?;
    }
    Ok(())
}

fn ends(all: &[Bar]) -> impl Iterator<Item = (&Bar, Spread)> {
    all.iter().filter_map(|bar| Some((bar, bar.end?)))
}

/// Parts begin where the one before ends; the sum is written at the end of the last.
fn placed(chart: &Bars) -> Vec<Bar> {
    let mut all: Vec<Bar> = Vec::new();
    for case in 0..chart.cases.len() {
        let first = all.len();
        let mut from = 0.0;
        for (series, measured) in chart.measured.iter().enumerate() {
            let Some(spread) = measured.values.get(case).copied().flatten() else {
                continue;
            };
            let to = from + spread.median;
            all.push(Bar {
                case,
                series,
                from,
                to,
                end: chart.sums.is_none().then_some(spread),
            });
            if chart.sums.is_some() {
                from = to;
            }
        }
        if let (Some(sums), Some(last)) = (&chart.sums, all[first..].last_mut()) {
            last.end = sums.get(case).copied().flatten();
        }
    }
    all
}

/// From where to where it reaches, downwards.
#[expect(clippy::cast_precision_loss, reason = "a few dozen cases")]
fn heights(chart: &Bars, bar: &Bar) -> (f64, f64) {
    const MARGIN: f64 = 0.14;
    let (series, each) = if chart.sums.is_some() {
        (0, 1)
    } else {
        (bar.series, chart.measured.len())
    };
    let height = (1.0 - 2.0 * MARGIN) / each as f64;
    let top = bar.case as f64 + MARGIN + series as f64 * height;
    (top, top + height)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(least: f64, median: f64, most: f64) -> Spread {
        Spread {
            least,
            median,
            most,
        }
    }

    fn chart() -> Bars {
        Bars {
            title: "CPU".into(),
            unit: "µs per transaction".into(),
            cases: vec!["uniform".into(), "a < b & c".into()],
            measured: vec![
                Measured {
                    name: "ledger".into(),
                    values: vec![Some(spread(1.0, 2.0, 3.0)), Some(spread(2.0, 2.0, 2.0))],
                },
                Measured {
                    name: "Postgres".into(),
                    values: vec![Some(spread(15.0, 17.5, 21.0)), None],
                },
            ],
            sums: Some(vec![
                Some(spread(17.0, 19.4, 22.0)),
                Some(spread(2.0, 2.0, 2.0)),
            ]),
            wanted: None,
        }
    }

    #[test]
    fn a_picture_names_its_cases_series_and_values() {
        let svg = bars(&chart()).unwrap();
        for text in [
            "CPU",
            "µs per transaction",
            "uniform",
            "ledger",
            "Postgres",
            // The sum stands at its end, and nowhere else.
            "19.4",
            "a &lt; b &amp; c",
        ] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("a < b"), "{svg}");
        let beside = Bars {
            sums: None,
            ..chart()
        };
        assert!(bars(&beside).unwrap().contains("17.5"));
    }

    #[test]
    fn parts_begin_where_the_one_before_ends() {
        let all = placed(&chart());
        let found: Vec<_> = all.iter().map(|bar| (bar.from, bar.to)).collect();
        assert_eq!(found, [(0.0, 2.0), (2.0, 19.5), (0.0, 2.0)]);
        let ends: Vec<_> = all.iter().map(|bar| bar.end.map(|s| s.median)).collect();
        assert_eq!(ends, [None, Some(19.4), Some(2.0)]);
    }
}
