//! `report.html`: the run in pictures, in one file that needs nothing else.

use super::checks::Check;
use super::data;
use super::document::Parts;
use super::evaluate::Losses;
use super::launcher::Ended;
use super::plan::{PERIOD_NS, Plan};
use super::record::{Fate, Kind, Record};
use super::table;
use crate::chart::{COLOURS, Chart, STYLE, Series, escape};
use std::fmt::Write as _;

/// The corrector's band for margins, in frames.
const BAND_FRAMES: (f64, f64) = (0.05, 0.30);
/// Weight of the newest loss in the curve that is drawn.
const SMOOTHING: f64 = 0.15;

/// The page.
pub(crate) fn page(parts: &Parts<'_>) -> String {
    let Parts { plan, record, losses, .. } = parts;
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    let _ = writeln!(html, "<title>plesio demo, seed {}</title>\n<style>\n{STYLE}</style>", parts.args.seed);
    html.push_str("</head>\n<body>\n<h1>plesio demo</h1>\n");
    push_lead(&mut html, parts);
    section(
        &mut html,
        "Losses on the held-out mix",
        "Nats per byte; every member alone took the same steps on the \
        same batches as in the mesh.",
        &losses_table(plan, record, losses),
    );
    section(
        &mut html,
        "Training loss",
        "Each node's own loss on its own text, smoothed; dashed: the same member \
        alone, placed where it took that many steps in the mesh.",
        &training_chart(record, losses).svg(),
    );
    section(
        &mut html,
        "Margin and hysteresis band",
        "How long before a frame's close each contribution was \
        complete. Inside the band the phase corrector does nothing; below it, a node aims earlier.",
        &margin_chart(record).svg(),
    );
    section(
        &mut html,
        "Phase error",
        "How far each cut was from its due moment; positive is late.",
        &phase_chart(record).svg(),
    );
    section(
        &mut html,
        "Membership",
        "Solid: training in the mesh. The mark is where a process died.",
        &membership(plan, record),
    );
    section(
        &mut html,
        "Bytes sent",
        "By all nodes together: payload of the data plane; the sideband with all headers.",
        &bytes_chart(record).svg(),
    );
    section(
        &mut html,
        "Events",
        "What happened, with its cause; notes are what the nodes said on the way.",
        &events(record),
    );
    section(&mut html, "Checks", "What a demo promises, and what this one did.", &checks_table(parts.checks));
    if let Some(report) = &record.path {
        section(
            &mut html,
            "The path",
            "Every way between two nodes, data and sideband, went through a relay that was told to be bad.",
            &format!("<p>{}: {}.</p>\n", escape(&parts.args.impair.to_string()), escape(&report.to_string())),
        );
    }
    section(
        &mut html,
        "Processes",
        "Every node is a process with two UDP sockets: one for data, one for the \
        sideband.",
        &processes(plan, record),
    );
    let _ = writeln!(
        html,
        "<footer>{} · {} · {} cores · data plane {} ({})</footer>\n</body>\n</html>",
        escape(&parts.host.kernel),
        escape(parts.host.cpu.as_deref().unwrap_or(parts.host.architecture)),
        parts.host.cores,
        escape(&parts.host.tier),
        escape(&parts.host.tier_reason)
    );
    html
}

fn section(html: &mut String, title: &str, text: &str, body: &str) {
    let _ =
        writeln!(html, "<section>\n<h2>{}</h2>\n<p>{}</p>\n{body}</section>", escape(title), escape(text));
}

fn push_lead(html: &mut String, parts: &Parts<'_>) {
    let failed = parts.checks.iter().filter(|check| !check.pass).count();
    let verdict = match parts.ended {
        Ended::Interrupted => "interrupted".to_owned(),
        Ended::Broken(cause) => format!("the mesh could not go on: {cause}"),
        Ended::Whole if failed > 0 => format!("{failed} of {} checks failed", parts.checks.len()),
        Ended::Whole => format!("all {} checks passed", parts.checks.len()),
    };
    let _ = writeln!(
        html,
        "<p class=\"lead\">{} nodes of unequal speed adapted one model for {:.0} s and committed {} versions of \
         it, with no coordinator: {}.</p>",
        parts.plan.founders(),
        parts.record.trained_s,
        parts.record.versions_committed(),
        escape(&verdict)
    );
}

fn loss_text(loss: Option<f64>) -> String {
    loss.map_or("–".into(), |loss| format!("{loss:.4}"))
}

fn losses_table(plan: &Plan, record: &Record, losses: &Losses) -> String {
    let mut rows = format!("<tr><td>base<td>–<td>{}</tr>\n", loss_text(losses.base));
    for alone in &losses.alone {
        let member = plan.members.iter().find(|member| member.name == alone.name);
        let shard = member.map_or("?", |member| data::shard_name(member.work.shard));
        let loss = loss_text(alone.loss);
        let _ = writeln!(
            rows,
            "<tr><td>{} alone ({shard})<td>{}<td>{loss}</tr>",
            escape(&alone.name),
            alone.steps
        );
    }
    let steps = record.steps_computed();
    let _ = writeln!(rows, "<tr class=\"best\"><td>mesh<td>{steps}<td>{}</tr>", loss_text(losses.mesh));
    format!("<table><tr><th>adapter<th>steps<th>nats/byte</tr>\n{rows}</table>\n")
}

/// A chart over the run's time, with the kill and the views marked.
fn over_time(record: &Record, y_label: &'static str, series: Vec<Series>) -> Chart {
    let views = record.views.iter().filter(|(t_s, ..)| *t_s > 0.5);
    let mut marks: Vec<(f64, String)> =
        views.map(|(t_s, number, _)| (*t_s, format!("view {number}"))).collect();
    marks.extend(record.killed_s.map(|t_s| (t_s, String::new())));
    Chart { y_label, height: 260.0, series, marks, x_range: (0.0, record.end_s()), ..Chart::default() }
}

fn colour(index: usize) -> usize {
    index % COLOURS
}

fn smoothed(points: impl Iterator<Item = (f64, f32)>) -> Vec<(f64, f64)> {
    let mut mean = None;
    points
        .map(|(at, value)| {
            let value = f64::from(value);
            let next = mean.map_or(value, |mean: f64| mean + SMOOTHING * (value - mean));
            mean = Some(next);
            (at, next)
        })
        .collect()
}

fn training_chart(record: &Record, losses: &Losses) -> Chart {
    let mut series = Vec::new();
    for (index, node) in record.nodes.iter().enumerate() {
        let points = smoothed(node.losses.iter().copied());
        series.push(Series { name: node.name.clone(), colour: colour(index), dashed: false, points });
        let Some(alone) = losses.alone.iter().find(|alone| alone.name == node.name) else { continue };
        // The n-th of the losses kept stands for its share of the steps.
        let moment = |step: u64| {
            let kept = (step * node.losses.len() as u64 / node.steps.max(1)) as usize;
            node.losses.get(kept.min(node.losses.len().saturating_sub(1))).map(|(t_s, _)| *t_s)
        };
        let curve = alone.curve.iter().filter_map(|(step, loss)| Some((moment(*step)?, *loss)));
        let points = smoothed(curve);
        series.push(Series {
            name: format!("{} alone", node.name),
            colour: colour(index),
            dashed: true,
            points,
        });
    }
    over_time(record, "nats per byte", series)
}

fn margin_chart(record: &Record) -> Chart {
    let series = record.nodes.iter().enumerate().map(|(index, node)| {
        let commits = record.commits.values();
        let points = commits.flat_map(|commit| {
            let own = commit.entries.iter().filter(|entry| entry.node == node.key);
            own.filter_map(|entry| Some((commit.final_s?, f64::from(entry.margin_frames))))
        });
        Series { name: node.name.clone(), colour: colour(index), dashed: false, points: points.collect() }
    });
    let mut chart = over_time(record, "margin, frames", series.collect());
    chart.band = Some((BAND_FRAMES.0, BAND_FRAMES.1, "hysteresis band"));
    chart.y_range = Some((0.0, 0.5));
    chart
}

fn phase_chart(record: &Record) -> Chart {
    let series = record.nodes.iter().enumerate().map(|(index, node)| {
        let frames = |error_ns: i64| error_ns as f64 / PERIOD_NS as f64;
        let points = node.phases.iter().map(|(t_s, error_ns)| (*t_s, frames(*error_ns))).collect();
        Series { name: node.name.clone(), colour: colour(index), dashed: false, points }
    });
    let mut chart = over_time(record, "phase error, frames", series.collect());
    chart.y_range = Some((-0.5, 0.5));
    chart
}

fn bytes_chart(record: &Record) -> Chart {
    let mut data: Vec<(f64, f64)> = Vec::new();
    let mut sideband: Vec<(f64, f64)> = Vec::new();
    // Every node's newest figure at each full second.
    for second in 0..=record.end_s() as usize {
        let t_s = second as f64;
        let newest = record.nodes.iter().filter_map(|node| {
            let upto = node.progress.partition_point(|(at, _)| *at <= t_s);
            node.progress.get(upto.checked_sub(1)?).map(|(_, sample)| sample.bytes)
        });
        let (sum_data, sum_sideband) = newest.fold((0.0, 0.0), |(data, sideband), bytes| {
            (data + bytes.data_sent as f64, sideband + bytes.sideband_sent as f64)
        });
        data.push((t_s, sum_data / 1e6));
        sideband.push((t_s, sum_sideband / 1e6));
    }
    let line = |name: &str, colour, points| Series { name: name.into(), colour, dashed: false, points };
    let mut chart = over_time(record, "MB", vec![line("data", 0, data), line("sideband", 1, sideband)]);
    chart.y_range = Some((0.0, 0.1));
    chart
}

/// One bar per member over the run's time.
fn membership(plan: &Plan, record: &Record) -> String {
    const LEFT: f64 = 54.0;
    const WIDTH: f64 = 860.0;
    const ROW: f64 = 22.0;
    let scale = (WIDTH - LEFT - 14.0) / record.end_s().max(1e-3);
    let place = |t_s: f64| LEFT + (t_s.clamp(0.0, record.end_s().max(0.0))) * scale;
    let height = ROW * record.nodes.len() as f64 + 8.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"membership\">\n");
    for (index, node) in record.nodes.iter().enumerate() {
        let y = ROW * index as f64 + 4.0;
        let shard = data::shard_name(plan.members[index].work.shard);
        let _ = writeln!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 13.0,
            escape(&node.name)
        );
        let Some((from_s, _)) = node.attached else { continue };
        let crash = record.events.iter().find(|event| event.kind == Kind::Crash && event.node == node.name);
        let end_s = crash.map_or(record.end_s(), |event| event.t_s);
        let (from, to) = (place(from_s), place(end_s));
        let _ = writeln!(
            svg,
            "<rect class=\"bar c{}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\"/>\
             <text class=\"on-bar\" x=\"{:.1}\" y=\"{:.1}\">{shard}, speed {}</text>",
            colour(index),
            (to - from).max(1.0),
            ROW - 6.0,
            from + 6.0,
            y + 12.5,
            plan.members[index].speed
        );
        if matches!(node.fate, Fate::Killed | Fate::Crashed) {
            let _ =
                writeln!(svg, "<text class=\"cross\" x=\"{:.1}\" y=\"{:.1}\">✕</text>", to + 3.0, y + 13.0);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn events(record: &Record) -> String {
    let mut all: Vec<(f64, &str, String, &str)> = Vec::new();
    for event in &record.events {
        let kind = format!("{:?}", event.kind).to_lowercase();
        all.push((event.t_s, event.node.as_str(), kind, event.cause.as_str()));
    }
    all.extend(record.notes.iter().map(|(t_s, note)| (*t_s, "", "note".into(), note.as_str())));
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut rows = String::from("<table><tr><th>time<th>node<th>event<th>cause</tr>\n");
    for (t_s, node, kind, cause) in all {
        let (node, cause) = (escape(node), escape(cause));
        let _ = writeln!(rows, "<tr><td>{t_s:.2} s<td>{node}<td>{kind}<td>{cause}</tr>");
    }
    rows.push_str("</table>\n");
    rows
}

fn checks_table(checks: &[Check]) -> String {
    let mut rows = String::from("<table><tr><th><th>check<th>expected<th>measured</tr>\n");
    for check in checks {
        let (class, verdict) = if check.pass { ("pass", "pass") } else { ("fail", "FAIL") };
        let (expected, measured) = (escape(&check.expected), escape(&table::spoken(&check.measured)));
        let _ = writeln!(
            rows,
            "<tr><td class=\"{class}\">{verdict}<td>{}<td class=\"wrap\">{expected}<td class=\"wrap\">{measured}</tr>",
            check.name
        );
    }
    rows.push_str("</table>\n");
    rows
}

fn processes(plan: &Plan, record: &Record) -> String {
    let mut rows = String::from(
        "<table><tr><th>node<th>pid<th>data<th>sideband<th>backend<th>text<th>core share<th>clock<th>steps\
         <th>committed</tr>\n",
    );
    for (node, member) in record.nodes.iter().zip(&plan.members) {
        let (data_port, sideband) = match &node.hello {
            Some(hello) => (hello.data.to_string(), hello.sideband.to_string()),
            None => ("–".into(), "–".into()),
        };
        let clock = match member.clock.offset_ns {
            0 => "as it is".to_owned(),
            off => format!("{:+} s, {:+} ppm", off as f64 / 1e9, member.clock.rate_ppm),
        };
        let _ = writeln!(
            rows,
            "<tr><td>{}<td>{}<td>{data_port}<td>{sideband}<td>{}<td>{}<td>{:.2}<td>{clock}<td>{}<td>{}</tr>",
            escape(&node.name),
            node.pid.map_or("–".into(), |pid| pid.to_string()),
            escape(&node.found.backend),
            data::shard_name(member.work.shard),
            member.duty,
            node.steps,
            record.steps_committed(node.key)
        );
    }
    rows.push_str("</table>\n");
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::example::Example;

    #[test]
    fn the_page_needs_nothing_from_outside() {
        let mut run = Example::new();
        run.record.events[0].cause = "<script>alert(1)</script>".into();
        let html = page(&run.parts());
        for outside in ["http://", "https://", "src=", "@import", "url(", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert_eq!(html.matches("<svg").count(), 5);
        assert!(html.contains("hysteresis band") && html.contains("view 2") && html.contains("✕"));
        assert!(html.contains("all 13 checks passed"));
        assert!(html.len() < 2 << 20, "{}", html.len());
    }
}
