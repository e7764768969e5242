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
    pub title: String,
    /// What the axis says: the quantity and its unit.
    pub unit: String,
    pub cases: Vec<String>,
    pub measured: Vec<Measured>,
    /// Whether the series of a case are parts of a sum, and stand one behind the other.
    pub are_parts: bool,
    /// What was wanted: a line across.
    pub wanted: Option<f64>,
}

/// A series: a value for each case, none where it was not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub name: String,
    pub values: Vec<Option<Spread>>,
}

/// A bar: the place of its case and of its series, from where to where, and the spread about its end.
struct Bar {
    case: usize,
    series: usize,
    from: f64,
    to: Spread,
}

/// Draws them, first to last from the top.
pub fn bars(chart: &Bars) -> anyhow::Result<String> {
    let each = if chart.are_parts {
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
    let longest = all.iter().map(|bar| bar.to.most).fold(0.0, f64::max);
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
        let corners = [(bar.from, top), (bar.to.median, bottom)];
        let filled = colour(bar.series).filled();
        axes.draw_series([Rectangle::new(corners, filled)])?;
    }
    for bar in all.iter().filter(|bar| is_end(chart, bar)) {
        let (top, bottom) = heights(chart, bar);
        let (middle, tick) = (f64::midpoint(top, bottom), (bottom - top) / 5.0);
        if bar.to.most > bar.to.least {
            let [from, to] = [bar.to.least, bar.to.most];
            let across = |x| vec![(x, middle - tick), (x, middle + tick)];
            let paths = [vec![(from, middle), (to, middle)], across(from), across(to)];
            axes.draw_series(paths.map(|path| PathElement::new(path, INK)))?;
        }
        let value = Text::new(short(bar.to.median), (6, 0), text(HPos::Left));
        axes.draw_series([EmptyElement::at((bar.to.most, middle)) + value])?;
    }
    if let Some(wanted) = chart.wanted {
        let across = vec![(wanted, 0.0), (wanted, bottom)];
        axes.draw_series([PathElement::new(across, INK.stroke_width(2))])?;
    }
    Ok(())
}

/// Parts begin where the one before ends; the spread about the end is that of the last part alone.
fn placed(chart: &Bars) -> Vec<Bar> {
    let mut all = Vec::new();
    for case in 0..chart.cases.len() {
        let mut from = 0.0;
        for (series, measured) in chart.measured.iter().enumerate() {
            let Some(spread) = measured.values.get(case).copied().flatten() else {
                continue;
            };
            let moved = |value: f64| value + from;
            let to = Spread {
                least: moved(spread.least),
                median: moved(spread.median),
                most: moved(spread.most),
            };
            all.push(Bar {
                case,
                series,
                from,
                to,
            });
            if chart.are_parts {
                from = to.median;
            }
        }
    }
    all
}

/// Whether nothing stands behind the bar.
fn is_end(chart: &Bars, bar: &Bar) -> bool {
    let later = chart.measured.iter().skip(bar.series + 1);
    let goes_on = later
        .filter_map(|measured| measured.values.get(bar.case)?.as_ref())
        .next()
        .is_some();
    !(chart.are_parts && goes_on)
}

/// From where to where it reaches, downwards.
#[expect(clippy::cast_precision_loss, reason = "a few dozen cases")]
fn heights(chart: &Bars, bar: &Bar) -> (f64, f64) {
    const MARGIN: f64 = 0.14;
    let (series, each) = if chart.are_parts {
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

    fn spread(least: f64, median: f64, most: f64) -> Option<Spread> {
        Some(Spread {
            least,
            median,
            most,
        })
    }

    fn chart() -> Bars {
        Bars {
            title: "CPU".into(),
            unit: "µs per transaction".into(),
            cases: vec!["uniform".into(), "a < b & c".into()],
            measured: vec![
                Measured {
                    name: "ledger".into(),
                    values: vec![spread(1.0, 2.0, 3.0), spread(2.0, 2.0, 2.0)],
                },
                Measured {
                    name: "Postgres".into(),
                    values: vec![spread(15.0, 17.5, 21.0), None],
                },
            ],
            are_parts: true,
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
            "19.5",
            "a &lt; b &amp; c",
        ] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("a < b"), "{svg}");
        let beside = Bars {
            are_parts: false,
            ..chart()
        };
        assert!(bars(&beside).unwrap().contains("17.5"));
    }

    #[test]
    fn parts_begin_where_the_one_before_ends() {
        let all = placed(&chart());
        let found: Vec<_> = all.iter().map(|bar| (bar.from, bar.to.median)).collect();
        assert_eq!(found, [(0.0, 2.0), (2.0, 19.5), (0.0, 2.0)]);
        assert_eq!(all[1].to, spread(17.0, 19.5, 23.0).unwrap());
    }
}
