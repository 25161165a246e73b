//! `plots.html`: the sweep in pictures, in one file that needs nothing else.

use super::cell::Cell;
use super::row::Row;
use crate::chart::{COLOURS, Chart, STYLE, Series, escape};
use std::fmt::Write as _;

/// Loss over time of cells that belong together, and what they came to.
pub(super) fn page(cells: &[Cell], rows: &[Row], words: &str) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    let _ = writeln!(html, "<title>plesio characterize</title>\n<style>\n{STYLE}</style>\n</head>\n<body>");
    let _ = writeln!(html, "<h1>plesio characterize</h1>\n<p class=\"lead\">{}</p>", escape(words));
    for (title, group) in groups(cells) {
        let _ = writeln!(
            html,
            "<section>\n<h2>{}</h2>\n<p>Nats per letter on text that nobody trains on, by the newest version; of several seeds the \
             first.</p>\n{}{}</section>",
            escape(&title),
            chart(cells, rows, &group),
            table(cells, rows, &group)
        );
    }
    html.push_str("</body>\n</html>\n");
    html
}

/// Of a star a group for every factor, the middle in each; of a matrix as many cells as there are colours.
fn groups(cells: &[Cell]) -> Vec<(String, Vec<usize>)> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (at, cell) in cells.iter().enumerate() {
        let Some(factor) = cell.factor else { continue };
        match groups.last_mut().filter(|(name, _)| name == factor) {
            Some((_, group)) => group.push(at),
            None => groups.push((factor.into(), vec![0, at])),
        }
    }
    if groups.is_empty() {
        let all: Vec<usize> = (0..cells.len()).collect();
        groups = all
            .chunks(COLOURS)
            .map(|part| (format!("cells {} to {}", part[0], part[part.len() - 1]), part.to_vec()))
            .collect();
    }
    groups
}

fn chart(cells: &[Cell], rows: &[Row], group: &[usize]) -> String {
    let series = group.iter().enumerate().filter_map(|(colour, at)| {
        let row = rows.iter().find(|row| row.cell_id == *at)?;
        let colour = colour % COLOURS;
        Some(Series { name: name(cells, group, *at), colour, dashed: false, points: row.losses.clone() })
    });
    Chart { y_label: "loss", height: 260.0, series: series.collect(), ..Chart::default() }.svg()
}

/// What tells a cell from the others of its group.
fn name(cells: &[Cell], group: &[usize], at: usize) -> String {
    let words = |cell: &Cell| -> Vec<String> {
        let period = cell.period_ms.map_or("of the links".into(), |ms| format!("{ms} ms"));
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        vec![
            format!("{} nodes", cell.nodes),
            format!("steps {} ms", cell.mix_ms),
            format!("clocks {} ppm", cell.clock_ppm),
            word(serde_json::json!(cell.links)),
            format!("{} deaths/h", cell.churn_per_node_h),
            format!("alpha {}", cell.alpha),
            format!("period {period}"),
            word(serde_json::json!(cell.weights)),
        ]
    };
    let all: Vec<Vec<String>> = group.iter().map(|at| words(&cells[*at])).collect();
    let own = words(&cells[at]);
    let differs = |part: &usize| all.iter().any(|words| words[*part] != own[*part]);
    let parts: Vec<&str> = (0..own.len()).filter(differs).map(|part| own[part].as_str()).collect();
    if parts.is_empty() { format!("cell {at}") } else { parts.join(", ") }
}

fn table(cells: &[Cell], rows: &[Row], group: &[usize]) -> String {
    const SHOWN: [(&str, &str, usize); 9] = [
        ("loss_final", "loss", 4),
        ("loss_gap_vs_serial", "above serial", 4),
        ("t_target_s", "target after, s", 1),
        ("useful_frac", "useful", 3),
        ("late_frac", "late", 3),
        ("fold_frac", "folded", 3),
        ("commit_lat_p50_ms", "commit p50, ms", 0),
        ("commit_lat_p99_ms", "p99, ms", 0),
        ("clock_err_p99_ns", "clock p99, ns", 0),
    ];
    let mut html = String::from("<table><tr><th>mean of the seeds");
    SHOWN.iter().for_each(|(_, title, _)| html += &format!("<th>{title}"));
    html.push_str("</tr>\n");
    for at in group {
        let _ = write!(html, "<tr><td>{}", escape(&name(cells, group, *at)));
        for (column, _, digits) in SHOWN {
            let own = rows.iter().filter(|row| row.cell_id == *at);
            let values: Vec<f64> = own.filter_map(|row| row.number(column)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let text = if values.is_empty() { "–".into() } else { format!("{mean:.digits$}") };
            let _ = write!(html, "<td>{text}");
        }
        html.push_str("</tr>\n");
    }
    html + "</table>\n"
}
