//! The result for a person: losses side by side, what was checked, and where to look next.

use super::data;
use super::document::Parts;
use super::evaluate::Losses;
use super::launcher::Ended;
use super::plan::Plan;
use super::record::Record;
use crate::paint::Paint;
use serde_json::Value;
use std::fmt::Write as _;

/// Width of the column of measured values; a wider one has a line of its own.
const VALUE_CHARS: usize = 12;
/// Widest value of a check in the table; the whole one is in the document.
const VALUE_CHARS_MAX: usize = 60;

/// The table; `program` is what this command was called by, for the commands to try next.
pub(crate) fn table(parts: &Parts<'_>, program: &str, paint: Paint) -> String {
    let Parts { args, plan, record, losses, checks, ended, .. } = parts;
    let mut text = String::new();
    match ended {
        Ended::Whole => {}
        Ended::Interrupted => text.push_str("interrupted: this is what there was\n"),
        Ended::Broken(cause) => {
            let _ = writeln!(text, "{}: {cause}", paint.red("the mesh could not go on"));
        }
    }
    losses_table(&mut text, plan, record, losses, paint);
    if !record.views.is_empty() {
        let _ = writeln!(text, "\n{}  {}", paint.bold("shares"), crate::shares::text(&record.shares));
    }
    if let Some(report) = &record.path {
        let _ = writeln!(text, "\n{}  {}", paint.bold("path"), args.impair);
        let _ = writeln!(text, "  {report}");
    }
    if !checks.is_empty() {
        let _ = writeln!(text, "\n{}", paint.bold("checks"));
        for check in *checks {
            let verdict = if check.pass { paint.green("pass") } else { paint.red("FAIL") };
            let measured = short(&check.measured);
            let _ = write!(text, "  {verdict}  {:<24} {measured:<VALUE_CHARS$}", check.name);
            if measured.chars().count() > VALUE_CHARS {
                let _ = write!(text, "\n{:1$}", "", 33 + VALUE_CHARS);
            }
            let _ = writeln!(text, " {}", paint.dim(&format!("expected {}", check.expected)));
        }
    }
    let out = args.out.display();
    let _ = writeln!(text, "\n{}", paint.bold("files"));
    let _ = writeln!(text, "  {out}/report.html  the run in pictures, opens offline");
    let _ = writeln!(text, "  {out}/run.json     all figures, plesio.demo/1");
    // An interrupted comparison has an adapter without a loss.
    if record.nodes.iter().any(|node| node.state.is_some()) {
        let _ = writeln!(text, "  {out}/adapter/     the adapter, in PEFT's layout");
    }
    let _ = writeln!(text, "\n{}", paint.bold("next"));
    let _ = writeln!(text, "  {program} demo --nodes 8 --seed 2     more nodes, another story");
    let _ = writeln!(text, "  {program} demo --backend mio          the same without io_uring");
    let _ = writeln!(text, "  {program} doctor                      what this machine offers");
    text
}

/// A measured value for a person, cut to what a line holds.
fn short(value: &Value) -> String {
    let text = spoken(value);
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    text.chars().take(VALUE_CHARS_MAX - 1).chain(['…']).collect()
}

/// A measured value for a person: few digits, and lists by their items.
pub(crate) fn spoken(value: &Value) -> String {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if !number.is_f64() || float.abs() >= 1000.0 => format!("{float:.0}"),
            Some(float) => format!("{float:.4}"),
            None => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(spoken).collect::<Vec<_>>().join("; "),
        Value::Null => "unknown".into(),
        other => other.to_string(),
    }
}

fn losses_table(text: &mut String, plan: &Plan, record: &Record, losses: &Losses, paint: Paint) {
    if losses.base.is_none() && losses.mesh.is_none() {
        let _ = writeln!(
            text,
            "{} versions committed by {} processes",
            record.versions_committed(),
            record.processes()
        );
        return;
    }
    let loss = |loss: Option<f64>| loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
    let gain = |loss: Option<f64>| match losses.base.zip(loss) {
        Some((base, loss)) => format!("{:+.4}", loss - base),
        None => "-".into(),
    };
    let head = format!("{:<22} {:>7} {:>11} {:>9}", "held-out mix", "steps", "nats/byte", "to base");
    let _ = writeln!(text, "{}", paint.bold(&head));
    let _ = writeln!(text, "{:<22} {:>7} {:>11} {:>9}", "base", "-", loss(losses.base), "");
    for alone in &losses.alone {
        let member = plan.members.iter().find(|member| member.name == alone.name);
        let shard = member.map_or("?", |member| data::shard_name(member.work.shard));
        let name = format!("{} alone, {shard}", alone.name);
        let _ =
            writeln!(text, "{name:<22} {:>7} {:>11} {:>9}", alone.steps, loss(alone.loss), gain(alone.loss));
    }
    let steps = record.steps_computed();
    let mesh = format!("{:<22} {steps:>7} {:>11} {:>9}", "mesh", loss(losses.mesh), gain(losses.mesh));
    let _ = writeln!(text, "{}", paint.bold(&mesh));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::example::Example;
    use serde_json::json;

    #[test]
    fn values_are_said_shortly() {
        let said = |value| short(&value);
        assert_eq!(said(json!(4.993_120_3)), "4.9931");
        assert_eq!(said(json!(457_605.7)), "457606");
        assert_eq!(said(json!(10)), "10");
        assert_eq!(said(json!(null)), "unknown");
        assert_eq!(said(json!([])), "none");
        assert_eq!(said(json!(["a", "b"])), "a; b");
        assert_eq!(said(json!("é".repeat(500))).chars().count(), VALUE_CHARS_MAX);
    }

    #[test]
    fn the_table_compares_base_alone_and_mesh() {
        let mut run = Example::new();
        run.args.out = "somewhere".into();
        let whole = run.parts();
        let text = table(&whole, "bin/plesio", Paint(false));
        for line in [
            "base ",
            "n0 alone, scripture",
            "mesh ",
            "useful_ratio",
            "somewhere/run.json",
            "somewhere/adapter/",
            "bin/plesio doctor",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains('\x1b') && !text.contains("FAIL"), "{text}");
        let places: Vec<usize> = text.lines().filter_map(|line| line.find(" expected ")).collect();
        assert_eq!(places, vec![33 + VALUE_CHARS; whole.checks.len()], "{text}");
        let (ended, unknown) = (Ended::Broken("no quorum".into()), Losses::default());
        let mut lost = run.record.clone();
        lost.nodes.iter_mut().for_each(|node| node.state = None);
        let broken = Parts { record: &lost, losses: &unknown, checks: &[], ended: &ended, ..whole };
        let text = table(&broken, "plesio", Paint(false));
        assert!(text.contains("no quorum") && !text.contains("adapter/"), "{text}");
    }
}
