//! Lines, in panels side by side.

use plotters::chart::ChartBuilder;
use plotters::element::{Circle, EmptyElement, PathElement, Text};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, IntoFont as _};

use super::{Area, GRID, INK, TEXT_PX, colour, picture, short, text};
use crate::spread::Spread;

const PANEL_PX: (u32, u32) = (450, 330);
const COLUMNS: usize = 2;
const HEAD_PX: u32 = 62;

/// One panel. The places on its axis are equally far apart, whatever they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// What is varied.
    pub x: String,
    /// What was measured, with its unit.
    pub y: String,
    /// The values of what is varied, as they are written.
    pub places: Vec<String>,
    /// What was measured.
    pub curves: Vec<Curve>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What the legend says.
    pub name: String,
    /// By place; none where it was not measured.
    pub values: Vec<Option<Spread>>,
}

/// Draws panels with one legend: that of the one with most curves. All have the same height of a unit.
pub fn lines(title: &str, panels: &[Lines]) -> anyhow::Result<String> {
    let columns = COLUMNS.min(panels.len().max(1));
    let rows = panels.len().div_ceil(columns);
    let width = PANEL_PX.0 * u32::try_from(columns)?;
    let height = PANEL_PX.1 * u32::try_from(rows)? + HEAD_PX;
    let most = panels.iter().max_by_key(|panel| panel.curves.len());
    let curves = most.map_or(&[][..], |panel| &panel.curves);
    let legend: Vec<_> = curves.iter().map(|curve| curve.name.as_str()).collect();
    let all = panels.iter().flat_map(|panel| &panel.curves);
    let all = all.flat_map(|curve| curve.values.iter().flatten());
    let top = all.map(|spread| spread.most).fold(0.0, f64::max).max(1e-9) * 1.1;
    picture((width, height), title, &legend, |area| {
        for (panel, area) in panels.iter().zip(area.split_evenly((rows, columns))) {
            draw(panel, top, &area)?;
        }
        Ok(())
    })
}

/// A panel of latencies by percentile, such as (99.9, 12.5): a curve for each load. The places on its axis are equally
/// far apart.
pub fn percentiles(y: &str, loads: &[(String, Vec<(f64, f64)>)]) -> Lines {
    let mut places: Vec<f64> = loads
        .iter()
        .flat_map(|(_, at)| at)
        .map(|(p, _)| *p)
        .collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let curve = |(name, at): &(String, Vec<(f64, f64)>)| {
        let at = |place: &f64| {
            let (_, ms) = at.iter().find(|(p, _)| p.total_cmp(place).is_eq())?;
            Spread::of([*ms])
        };
        Curve {
            name: name.clone(),
            values: places.iter().map(at).collect(),
        }
    };
    Lines {
        x: "percentile".to_owned(),
        y: y.to_owned(),
        places: places.iter().map(|p| format!("p{p}")).collect(),
        curves: loads.iter().map(curve).collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few dozen places")]
fn draw(panel: &Lines, top: f64, area: &Area<'_>) -> anyhow::Result<()> {
    let right = panel.places.len() as f64 - 0.5;
    let mut axes = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(60)
        .build_cartesian_2d(-0.5..right, 0.0..top)?;
    axes.configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&|y| short(*y))
        .x_desc(panel.x.as_str())
        .y_desc(panel.y.as_str())
        .label_style(("sans-serif", TEXT_PX).into_font().color(&INK))
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .axis_style(INK)
        .draw()?;
    axes.draw_series((0..).zip(&panel.places).map(|(place, name)| {
        let below = (f64::from(place), 0.0);
        EmptyElement::at(below) + Text::new(name.clone(), (0, 14), text(HPos::Center))
    }))?;
    for (place, curve) in panel.curves.iter().enumerate() {
        let colour = colour(place);
        let measured = (0..).zip(&curve.values);
        let measured = measured.filter_map(|(x, spread)| Some((f64::from(x), (*spread)?)));
        let measured: Vec<(f64, Spread)> = measured.collect();
        let middles = measured.iter().map(|(x, spread)| (*x, spread.median));
        let path: Vec<_> = middles.clone().collect();
        axes.draw_series([PathElement::new(path, colour.stroke_width(2))])?;
        axes.draw_series(middles.map(|at| Circle::new(at, 4, colour.filled())))?;
        let spreads = measured.iter().filter(|(_, s)| s.most > s.least);
        axes.draw_series(spreads.map(|(x, spread)| {
            PathElement::new(vec![(*x, spread.least), (*x, spread.most)], colour)
        }))?;
        // By turns above and below the points, so that those of neighbours do not meet.
        let below = place % 2 == 1;
        // Of many curves the last value only.
        let first = match panel.curves.len() {
            0..=3 => 0,
            _ => measured.len().saturating_sub(1),
        };
        axes.draw_series(measured[first..].iter().map(|(x, spread)| {
            let (y, away) = if below {
                (spread.least, 14)
            } else {
                (spread.most, -12)
            };
            let value = Text::new(short(spread.median), (0, away), text(HPos::Center));
            EmptyElement::at((*x, y)) + value
        }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_that_a_load_lacks_are_left_out() {
        let loads = [
            ("1,000/s".to_owned(), vec![(50.0, 7.4), (99.9, 18.9)]),
            ("10,000/s".to_owned(), vec![(50.0, 9.6), (99.0, 26.8)]),
        ];
        let svg = lines("Accepted", &[percentiles("latency, ms", &loads)]).unwrap();
        for text in [
            "Accepted",
            "1,000/s",
            "10,000/s",
            "p50",
            "p99.9",
            "7.4",
            "26.8",
            "latency, ms",
        ] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        // A circle for each percentile of each load, and no other.
        assert_eq!(svg.matches("<circle").count(), 4);
    }

    #[test]
    fn panels_share_a_legend() {
        let panel = |x: &str| Lines {
            x: x.to_owned(),
            y: "µs".to_owned(),
            places: vec!["1".to_owned(), "48".to_owned()],
            curves: ["ledger", "Postgres"]
                .map(|name| Curve {
                    name: name.to_owned(),
                    values: vec![Spread::of([2.0, 3.0]), None],
                })
                .to_vec(),
        };
        let svg = lines("Flat", &[panel("partitions"), panel("accounts")]).unwrap();
        assert_eq!(svg.matches("Postgres").count(), 1);
        assert!(svg.contains("partitions") && svg.contains("accounts"));
    }
}
