//! `coord plot`: draws series of a run with characters.

use lockstep_rpc::CurvesQuery;
use lockstep_rpc::tracked_query::What as Tracked;
use serde::Deserialize;

use crate::args::PlotArguments;
use crate::connection::{Client, print_json, read};
use crate::terminal::{Exit, Failure, Output};

/// Width and height of a chart in characters, without its axes.
const WIDTH: usize = 72;
const HEIGHT: usize = 10;

/// The coordinator's list of series.
#[derive(Debug, Deserialize)]
pub(crate) struct Series {
    pub(crate) series: Vec<Summary>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) name: String,
    pub(crate) part: Option<u32>,
    count: u64,
    pub(crate) last_step: u64,
    pub(crate) last: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// The coordinator's answer with curves.
#[derive(Debug, Deserialize)]
struct Curves {
    series: Vec<Curve>,
}

/// A curve. Values that are not finite are `None`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Curve {
    name: String,
    part: Option<u32>,
    steps: Vec<u64>,
    pub(crate) values: Vec<Option<f64>>,
    #[serde(default)]
    min: Vec<Option<f64>>,
    #[serde(default)]
    max: Vec<Option<f64>>,
}

pub(crate) async fn plot(arguments: PlotArguments, out: &mut Output) -> Result<Exit, Failure> {
    let PlotArguments { run, series, part, from, to, reader } = arguments;
    let client = Client::connect(&reader.address.addr).await?;
    if series.is_empty() {
        let text = client.tracked(&run, Tracked::Series(0)).await?;
        if reader.json {
            return print_json(&text, out);
        }
        let found: Series = read(&text)?;
        list(&found.series, out);
        return Ok(Exit::Done);
    }
    let wanted = CurvesQuery { names: series.clone(), part, from, to, pixels: WIDTH as u32, branch: 0 };
    let text = client.tracked(&run, Tracked::Curves(wanted)).await?;
    if reader.json {
        return print_json(&text, out);
    }
    let found: Curves = read(&text)?;
    if found.series.is_empty() {
        let words = format!("run `{run}` has no series `{}`", series.join("`, `"));
        return Err(Failure::new(Exit::NotFound, words).hint(format!("`coord plot {run}` lists all")));
    }
    for curve in &found.series {
        for line in chart(curve) {
            out.line(&line);
        }
    }
    Ok(Exit::Done)
}

/// The curves of `run` that `wanted` names.
pub(crate) async fn curves(client: &Client, run: &str, wanted: CurvesQuery) -> Result<Vec<Curve>, Failure> {
    let text = client.tracked(run, Tracked::Curves(wanted)).await?;
    let found: Curves = read(&text)?;
    Ok(found.series)
}

fn list(series: &[Summary], out: &mut Output) {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let row = |one: &Summary| {
        vec![
            one.name.clone(),
            one.part.map_or_else(String::new, |part| part.to_string()),
            one.count.to_string(),
            one.last_step.to_string(),
            number(one.last),
            number(one.min),
            number(one.max),
        ]
    };
    let rows: Vec<Vec<String>> = series.iter().map(row).collect();
    out.table(&["SERIES", "PART", "POINTS", "LAST STEP", "LAST", "MIN", "MAX"], &rows);
}

/// A number with four decimals, or as `1.234e-5` if it is below 0.001 or from 100,000 on.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e5).contains(&size) { format!("{value:.4}") } else { format!("{value:.3e}") }
}

/// The lines of a chart: a title, and the curve with dots for values and bars from the minimum to the maximum of each bucket.
fn chart(curve: &Curve) -> Vec<String> {
    let Curve { name, part, steps, values, min, max } = curve;
    let part = part.map_or_else(String::new, |part| format!("[{part}]"));
    let last = values.iter().rev().find_map(|value| *value);
    let title = format!("{name}{part}  last {}", last.map_or_else(|| "-".to_owned(), short));
    let all = || values.iter().chain(min).chain(max).filter_map(|value| *value);
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let (Some(first), Some(end)) = (steps.first(), steps.last()) else { return vec![title] };
    if low > high {
        return vec![title, "  no finite value".to_owned()];
    }
    let row = |value: f64| {
        let place = if high > low { (value - low) / (high - low) } else { 0.5 };
        HEIGHT - 1 - ((place * (HEIGHT - 1) as f64).round() as usize).min(HEIGHT - 1)
    };
    let column = |step: u64| ((step - first) * (WIDTH as u64 - 1) / (end - first).max(1)) as usize;
    let mut cells = vec![vec![' '; WIDTH]; HEIGHT];
    for (place, step) in steps.iter().enumerate() {
        let column = column(*step);
        if let (Some(Some(low)), Some(Some(high))) = (min.get(place), max.get(place)) {
            for cells in &mut cells[row(*high)..=row(*low)] {
                cells[column] = '│';
            }
        }
    }
    for (step, value) in steps.iter().zip(values) {
        if let Some(value) = value {
            cells[row(*value)][column(*step)] = '•';
        }
    }
    let mut lines = vec![title];
    for (place, cells) in cells.iter().enumerate() {
        let label = match place {
            0 => short(high),
            place if place == HEIGHT - 1 => short(low),
            _ => String::new(),
        };
        let cells: String = cells.iter().collect();
        lines.push(format!("{label:>11} ┤{cells}").trim_end().to_owned());
    }
    let (first, end) = (first.to_string(), end.to_string());
    let gap = (WIDTH + 1).saturating_sub(first.len() + end.len());
    lines.push(format!("{:>12}{first}{}{end}", "", " ".repeat(gap)));
    lines
}

/// A curve in one line, with a bar for each value and `×` for a value that is not finite.
pub(crate) fn sparkline(values: &[Option<f64>]) -> String {
    let finite = || values.iter().filter_map(|value| *value);
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bars = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |value: &Option<f64>| match value {
        Some(value) if high > low => bars[(((value - low) / (high - low)) * 7.0).round() as usize],
        Some(_) => bars[0],
        None => '×',
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_corner_to_corner_and_holes_are_left_out() {
        let curve = Curve {
            name: "loss".to_owned(),
            part: Some(2),
            steps: vec![10, 20, 30],
            values: vec![Some(4.0), None, Some(0.5)],
            ..Curve::default()
        };
        let lines = chart(&curve);
        assert_eq!((lines.len(), lines[0].as_str()), (HEIGHT + 2, "loss[2]  last 0.5000"));
        assert_eq!(lines[1], "     4.0000 ┤•");
        assert_eq!(lines[HEIGHT], format!("     0.5000 ┤{}•", " ".repeat(WIDTH - 1)));
        assert!(lines[HEIGHT + 1].ends_with("30") && lines[HEIGHT + 1].trim_start().starts_with("10"));
        let flat = Curve { steps: vec![1], values: vec![Some(7.0)], ..Curve::default() };
        assert_eq!(chart(&flat).iter().filter(|line| line.contains('•')).count(), 1);
        let none = Curve { steps: vec![1], values: vec![None], ..Curve::default() };
        assert_eq!(chart(&none)[1], "  no finite value");
    }

    #[test]
    fn a_sparkline_has_a_bar_for_each_value() {
        assert_eq!(sparkline(&[Some(0.0), Some(0.5), None, Some(1.0)]), "▁▅×█");
        assert_eq!(sparkline(&[Some(3.0)]), "▁");
        assert_eq!(sparkline(&[]), "");
    }
}
