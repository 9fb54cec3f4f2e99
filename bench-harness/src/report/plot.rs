//! Plots as inline SVG: stacked horizontal bars, and lines over a numeric axis. Text in, text out.
#![forbid(unsafe_code)]

use std::fmt::Write;

/// One bar: a name and its stacked parts.
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// The parts, from the axis outwards.
    pub parts: Vec<f64>,
}

/// One line: a name and points in rising order of x.
pub struct Line {
    /// What it stands for.
    pub label: String,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

/// An axis: how values become places, and where it is labelled.
pub struct Axis {
    /// Its title.
    pub title: &'static str,
    /// Whether equal distances are equal factors.
    pub logarithmic: bool,
    /// Labelled values; with none given, round ones are chosen.
    pub ticks: Vec<(f64, String)>,
}

const WIDTH: f64 = 720.0;
const LABEL_WIDTH: f64 = 150.0;
const BAR_HEIGHT: f64 = 22.0;
const COLOURS: [&str; 10] = ["#4878d0", "#ee854a", "#6acc64", "#d65f5f", "#956cb4", "#8c613c", "#dc7ec0", "#797979", "#b8a52c", "#56b4c9"];

/// Horizontal bars with the total beside each.
pub fn bars(title: &str, unit: &str, parts: &[&str], bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.parts.iter().sum::<f64>()).fold(0.0, f64::max).max(1e-9);
    let height = 52.0 + BAR_HEIGHT * bars.len() as f64;
    let mut svg = open(title, height);
    for (index, part) in parts.iter().enumerate().filter(|_| parts.len() > 1) {
        let x = LABEL_WIDTH + 90.0 * index as f64;
        let _ = write!(svg, r#"<rect x="{x}" y="26" width="10" height="10" fill="{}"/>"#, COLOURS[index % COLOURS.len()]);
        let _ = write!(svg, r#"<text x="{}" y="35">{}</text>"#, x + 14.0, escape(part));
    }
    let scale = (WIDTH - LABEL_WIDTH - 90.0) / most;
    for (index, bar) in bars.iter().enumerate() {
        let y = 44.0 + BAR_HEIGHT * index as f64;
        let _ = write!(svg, r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#, LABEL_WIDTH - 6.0, y + 14.0, escape(&bar.label));
        let mut x = LABEL_WIDTH;
        for (part, value) in bar.parts.iter().enumerate() {
            let width = value * scale;
            let colour = COLOURS[part % COLOURS.len()];
            let _ = write!(svg, r#"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="{}" fill="{colour}"/>"#, BAR_HEIGHT - 5.0);
            x += width;
        }
        let total: f64 = bar.parts.iter().sum();
        let _ = write!(svg, r#"<text x="{:.1}" y="{}">{} {}</text>"#, x + 5.0, y + 14.0, short(total), escape(unit));
    }
    svg + "</svg>\n"
}

/// Lines with a legend at the right.
pub fn lines(title: &str, x_axis: &Axis, y_axis: &Axis, lines: &[Line]) -> String {
    let (left, right, top, bottom) = (64.0, WIDTH - 160.0, 34.0, 300.0);
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (Some(x_range), Some(y_range)) = (range(points().map(|point| point.0)), range(points().map(|point| point.1))) else {
        return String::new();
    };
    let y_range = if y_axis.logarithmic { y_range } else { (0.0, y_range.1 * 1.05) };
    let x_of = |x: f64| left + (right - left) * place(x, x_range, x_axis.logarithmic);
    let y_of = |y: f64| bottom - (bottom - top) * place(y, y_range, y_axis.logarithmic);
    let mut svg = open(title, 345.0);
    for (value, text) in ticks(x_axis, x_range) {
        let x = x_of(value);
        let _ =
            write!(svg, r#"<path class="g" d="M{x:.1} {top}V{bottom}"/><text x="{x:.1}" y="{}" text-anchor="middle">{}</text>"#, bottom + 16.0, escape(&text));
    }
    for (value, text) in ticks(y_axis, y_range) {
        let y = y_of(value);
        let _ = write!(
            svg,
            r#"<path class="g" d="M{left} {y:.1}H{right}"/><text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 6.0,
            y + 4.0,
            escape(&text)
        );
    }
    let _ = write!(svg, r#"<text x="{:.1}" y="{}" text-anchor="middle">{}</text>"#, (left + right) / 2.0, bottom + 36.0, escape(x_axis.title));
    let _ =
        write!(svg, r#"<text x="8" y="{:.1}" transform="rotate(-90 12 {0:.1})" text-anchor="middle">{}</text>"#, (top + bottom) / 2.0, escape(y_axis.title));
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dash = if index >= COLOURS.len() { r#" stroke-dasharray="5 3""# } else { "" };
        let path: Vec<String> = line.points.iter().map(|&(x, y)| format!("{:.1} {:.1}", x_of(x), y_of(y))).collect();
        let _ = write!(svg, r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>"#, path.join("L"));
        for &(x, y) in &line.points {
            let _ = write!(
                svg,
                r#"<circle cx="{:.1}" cy="{:.1}" r="2.2" fill="{colour}"><title>{}: {} at {}</title></circle>"#,
                x_of(x),
                y_of(y),
                escape(&line.label),
                short(y),
                short(x)
            );
        }
        let y = top + 8.0 + 18.0 * index as f64;
        let _ = write!(
            svg,
            r#"<path d="M{} {y}h18" stroke="{colour}" stroke-width="3"{dash}/><text x="{}" y="{}">{}</text>"#,
            right + 12.0,
            right + 35.0,
            y + 4.0,
            escape(&line.label)
        );
    }
    svg + "</svg>\n"
}

fn open(title: &str, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img"><title>{0}</title><text class="t" x="8" y="16">{0}</text>"#, escape(title))
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
    })
}

/// Where a value lies in a range, 0..1.
fn place(value: f64, (low, high): (f64, f64), logarithmic: bool) -> f64 {
    let form = |value: f64| {
        if logarithmic { value.max(1e-9).ln() } else { value }
    };
    let length = form(high) - form(low);
    if length.abs() < 1e-12 { 0.5 } else { ((form(value) - form(low)) / length).clamp(0.0, 1.0) }
}

fn ticks(axis: &Axis, (low, high): (f64, f64)) -> Vec<(f64, String)> {
    if !axis.ticks.is_empty() {
        return axis.ticks.iter().filter(|(value, _)| (low..=high).contains(value)).cloned().collect();
    }
    let values: Vec<f64> = if axis.logarithmic {
        let first = low.max(1e-9).log10().floor() as i32;
        let last = high.max(1e-9).log10().ceil() as i32;
        let steps = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        steps.filter(|value| (low..=high).contains(value)).collect()
    } else {
        let rough = (high / 5.0).max(1e-9);
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        (0..=5).map(|index| step * f64::from(index)).filter(|value| *value <= high).collect()
    };
    values.into_iter().map(|value| (value, short(value))).collect()
}

/// A number in few characters.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2}M", value / 1e6),
        size if size >= 1e4 => format!("{:.0}k", value / 1e3),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Text as it may stand in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_name_their_totals_and_escape_their_names() {
        let svg = bars("t", "µs", &["user", "kernel"], &[Bar { label: "<a>".into(), parts: vec![1.0, 2.5] }]);
        assert!(svg.contains("3.50 µs") && svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
    }

    #[test]
    fn lines_stay_inside_the_plot() {
        let axis = || Axis { title: "x", logarithmic: true, ticks: vec![] };
        let line = Line { label: "l".into(), points: vec![(1.0, 10.0), (512.0, 1000.0)] };
        let svg = lines("t", &axis(), &axis(), &[line]);
        assert!(svg.contains("M64.0 300.0L560.0 34.0"), "{svg}");
        assert_eq!(lines("t", &axis(), &axis(), &[]), "");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(0.5, "0.50"), (12.34, "12.3"), (512.0, "512"), (52_100.0, "52k"), (2e6, "2.00M")] {
            assert_eq!(short(value), text);
        }
    }
}
