//! Charts as SVG, on white: they are read on light and on dark pages.
//!
//! | module | draws |
//! |---|---|
//! | [`bars`] | something measured of several cases, one under the other |
//! | [`lines`] | something that depends on something, in panels; percentiles |

mod bars;
mod lines;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea as _};
use plotters::element::{Rectangle, Text};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, RGBColor, TextStyle, WHITE};

pub use bars::{Bars, Measured, bars};
pub use lines::{Curve, Lines, lines, percentiles};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Told apart with any kind of colour vision (Okabe and Ito), also beside each other.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
];

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

const TITLE_PX: i32 = 18;
const TEXT_PX: i32 = 13;

/// Title and legend.
const HEAD_PX: i32 = 62;

/// The width of a letter, about: nothing measures text here.
const LETTER_PX: usize = 7;

/// Writes pictures of a file of results, named after it and by the ends given, and names them.
pub fn save(
    directory: &Path,
    results: &Path,
    pictures: Vec<(&'static str, String)>,
) -> anyhow::Result<Vec<PathBuf>> {
    let stem = results
        .file_stem()
        .context("a file of results has a name")?;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let write = |(suffix, svg)| {
        let path = directory.join(format!("{}-{suffix}.svg", stem.display()));
        fs::write(&path, svg).with_context(|| path.display().to_string())?;
        Ok(path)
    };
    pictures.into_iter().map(write).collect()
}

/// Draws a picture of this size, its title and its legend, and the rest by `body`.
fn picture(
    size: (u32, u32),
    title: &str,
    legend: &[&str],
    body: impl FnOnce(&Area<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, rest) = root.split_vertically(HEAD_PX);
        let bold = ("sans-serif", TITLE_PX).into_font().color(&INK);
        head.draw(&Text::new(title.to_owned(), (16, 12), bold))?;
        draw_legend(&head, legend)?;
        body(&rest)?;
        root.present()?;
    }
    Ok(svg)
}

/// One series needs none: the axis says what it is.
fn draw_legend(head: &Area<'_>, names: &[&str]) -> anyhow::Result<()> {
    if names.len() < 2 {
        return Ok(());
    }
    let mut x = 16;
    for (place, name) in names.iter().enumerate() {
        let square = [(x, 40), (x + 12, 52)];
        head.draw(&Rectangle::new(square, colour(place).filled()))?;
        let text = Text::new((*name).to_owned(), (x + 18, 46), text(HPos::Left));
        head.draw(&text)?;
        x += 18 + width(name) + 24;
    }
    Ok(())
}

/// Text whose middle is at a height, and whose left, middle or right is at a place.
fn text(horizontal: HPos) -> TextStyle<'static> {
    let style = TextStyle::from(("sans-serif", TEXT_PX).into_font());
    style.color(&INK).pos(Pos::new(horizontal, VPos::Center))
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

fn width(text: &str) -> i32 {
    i32::try_from(text.chars().count() * LETTER_PX).unwrap_or(i32::MAX)
}

/// A number short enough to stand beside what it is of.
fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 1e6 => format!("{} M", trimmed(number / 1e6)),
        n if n >= 1e4 => format!("{:.0} k", number / 1e3),
        n if n >= 100.0 => format!("{number:.0}"),
        _ => trimmed(number),
    }
}

/// With one decimal, unless that is a zero.
fn trimmed(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (7.25, "7.2"),
            (12.0, "12"),
            (880.4, "880"),
            (67_170.0, "67 k"),
            (1_500_000.0, "1.5 M"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
