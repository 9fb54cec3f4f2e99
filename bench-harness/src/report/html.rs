//! The HTML page: plots first, then the tables of the Markdown report. One file, no scripts, nothing from elsewhere.
#![forbid(unsafe_code)]

use super::plot::{Axis, Bar, Line, bars, escape, lines};
use super::{cpu_us, label, scenarios};
use crate::compare::rows::{Row, Run};

/// The page for rows and, when there are any, their details.
pub fn page(rows: &[Row], run: Option<&Run>) -> String {
    let mut body = String::new();
    body.push_str(&scaling(rows));
    for scenario in scenarios(rows) {
        let of_scenario: Vec<&Row> = rows.iter().filter(|row| row.scenario == scenario).collect();
        body.push_str(&format!("<h2>{}</h2>\n<div class=\"row\">", escape(scenario)));
        body.push_str(&cost(&of_scenario));
        body.push_str(&throughput(&of_scenario));
        if let Some(run) = run {
            body.push_str(&latency(run, scenario));
        }
        body.push_str("</div>\n");
    }
    body.push_str(&tables(&super::markdown(rows, run)));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Comparison of HTTP proxies</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n\
         <body><h1>Comparison of HTTP proxies</h1>\n{body}</body></html>\n"
    )
}

fn cost(rows: &[&Row]) -> String {
    let parts = rows.iter().filter_map(|row| Some(Bar { label: label(row), parts: vec![row.cpu_us_user?, row.cpu_us_sys?] }));
    bars("CPU time of the proxy per request", "µs", &["user", "kernel"], &parts.collect::<Vec<_>>())
}

fn throughput(rows: &[&Row]) -> String {
    let parts: Vec<Bar> = rows.iter().map(|row| Bar { label: label(row), parts: vec![row.rps] }).collect();
    bars("Requests per second", "/s", &["requests"], &parts)
}

/// Latency over quantiles, with the tail stretched: equal distances are equal factors of requests that are slower.
fn latency(run: &Run, scenario: &str) -> String {
    let tail = |quantile: f64| 1.0 / (1.0 - quantile);
    let all: Vec<Line> = run
        .details
        .iter()
        .filter(|detail| detail.row.scenario == scenario)
        .map(|detail| Line {
            label: label(&detail.row),
            points: detail
                .percentiles
                .iter()
                .filter(|(quantile, us)| (0.0..=0.9999).contains(quantile) && *us > 0.0)
                .map(|&(quantile, us)| (tail(quantile), us))
                .collect(),
        })
        .collect();
    let named = [(0.0, "min"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
    let quantiles = Axis {
        title: "share of requests that were at least as fast",
        logarithmic: true,
        // Rounded down by a hair, so that the last tick does not fall off the axis.
        ticks: named.map(|(quantile, text)| ((tail(quantile) * (1.0 - 1e-9)).max(1.0), text.to_owned())).to_vec(),
    };
    lines("Latency distribution", &quantiles, &Axis { title: "µs", logarithmic: true, ticks: vec![] }, &all)
}

/// Cost and throughput over the number of connections, from the closed-loop scenarios with empty bodies.
fn scaling(rows: &[Row]) -> String {
    let series = |figure: fn(&Row) -> Option<f64>| -> Vec<Line> {
        let of_scaling = || rows.iter().filter(|row| row.scenario.starts_with("0b-c"));
        let mut all: Vec<Line> = Vec::new();
        for row in of_scaling() {
            let Some(value) = figure(row) else { continue };
            let point = (row.connections as f64, value);
            match all.iter_mut().find(|line| line.label == label(row)) {
                Some(line) => line.points.push(point),
                None => all.push(Line { label: label(row), points: vec![point] }),
            }
        }
        all.iter_mut().for_each(|line| line.points.sort_by(|one, two| one.0.total_cmp(&two.0)));
        all.retain(|line| line.points.len() > 1);
        all
    };
    let axis = || Axis { title: "connections", logarithmic: true, ticks: [1.0, 16.0, 64.0, 512.0].map(|count| (count, format!("{count:.0}"))).to_vec() };
    let plain = |title| Axis { title, logarithmic: false, ticks: vec![] };
    let plots = lines("CPU time per request by connections", &axis(), &plain("µs"), &series(cpu_us))
        + &lines("Throughput by connections", &axis(), &plain("requests/s"), &series(|row| Some(row.rps)));
    if plots.is_empty() { plots } else { format!("<h2>Scaling by connections</h2>\n<div class=\"row\">{plots}</div>\n") }
}

/// The few forms of Markdown that the report uses, as HTML.
fn tables(markdown: &str) -> String {
    let mut html = String::new();
    let mut open = "";
    for line in markdown.lines().skip(1) {
        let block = if line.starts_with('|') {
            "table"
        } else if line.starts_with("- ") {
            "ul"
        } else {
            ""
        };
        let begins = block != open;
        if begins && !open.is_empty() {
            html.push_str(&format!("</{open}>\n"));
        }
        if begins && !block.is_empty() {
            html.push_str(&format!("<{block}>\n"));
        }
        open = block;
        match block {
            "table" if line.starts_with("|---") => {}
            "table" => {
                let tag = if begins { "th" } else { "td" };
                let cells = line.trim_matches('|').split('|').map(|cell| format!("<{tag}>{}</{tag}>", escape(cell.trim())));
                html.push_str(&format!("<tr>{}</tr>\n", cells.collect::<String>()));
            }
            "ul" => html.push_str(&format!("<li>{}</li>\n", escape(&line[2..]))),
            _ if line.starts_with("## ") => html.push_str(&format!("<h2>{}</h2>\n", escape(&line[3..]))),
            _ if line.is_empty() => {}
            _ => html.push_str(&format!("<p>{}</p>\n", escape(line))),
        }
    }
    if !open.is_empty() {
        html.push_str(&format!("</{open}>\n"));
    }
    html
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1500px;padding:0 1em;color:#222;background:#fff}\
svg{width:100%;max-width:720px;font:12px system-ui,sans-serif;fill:#222}svg .t{font-weight:600;font-size:13px}\
svg .g{stroke:#ddd;fill:none}.row{display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start}\
.row svg{flex:1 1 460px}table{border-collapse:collapse;display:block;overflow-x:auto;font-size:13px}\
th,td{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}svg{fill:#ddd}svg .g{stroke:#444}th,td{border-color:#444}}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example_run;

    #[test]
    fn the_page_holds_all_plots_and_nothing_from_elsewhere() {
        let mut run = example_run();
        let mut more = run.details.clone();
        for detail in &mut more {
            detail.row.scenario = "0b-c512".into();
            detail.row.connections = 512;
        }
        run.details.extend(more);
        let page = page(&run.rows(), Some(&run));
        for title in ["CPU time of the proxy per request", "Requests per second", "Latency distribution", "Throughput by connections"] {
            assert!(page.contains(title), "{title}");
        }
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
        assert!(page.contains("nginx/1 &lt;test&gt;"));
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn markdown_tables_become_html_tables() {
        let html = tables("# x\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- one\n");
        assert_eq!(html, "<table>\n<tr><th>a</th><th>b</th></tr>\n<tr><td>1</td><td>2</td></tr>\n</table>\n<ul>\n<li>one</li>\n</ul>\n");
    }
}
