//! Ceilings and times, which Python takes: it has the buffers, the graphs and the rivals. Its scripts are in this
//! program.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command};

use plesio_launch::Artefact;
use serde_json::json;

use crate::args::{Args, Place};
use crate::child::{self, Ending};
use crate::deadline::Deadline;
use crate::plan::Row;
use crate::report::Journal;

/// The scripts, by name; `bench.py` is the first.
const SCRIPTS: [(&str, &str); 8] = [
    ("bench.py", include_str!("../python/bench.py")),
    ("ceilings.py", include_str!("../python/ceilings.py")),
    ("clock.py", include_str!("../python/clock.py")),
    ("driver.py", include_str!("../python/driver.py")),
    ("patching.py", include_str!("../python/patching.py")),
    ("sets.py", include_str!("../python/sets.py")),
    ("twins.py", include_str!("../python/twins.py")),
    ("twins_triton.py", include_str!("../python/twins_triton.py")),
];

/// Has Python time the rows, and hears what it says. What it reads is written to `folder`.
pub(crate) fn time(
    args: &Args,
    folder: &Result<PathBuf, String>,
    (chip, artefact): (&str, &Artefact),
    rows: &[Row],
    deadline: Deadline,
    report: &Journal,
) {
    if deadline.is_over() {
        return report.lock().cut("ceilings and times", deadline.ended());
    }
    report.begin("ceilings and times");
    let ending = run(args, folder, artefact, rows, deadline, |line| report.lock().hear(line, rows, chip));
    let mut report = report.lock();
    match ending {
        Err(why) => report.note(format!("ceilings and times were left out: {why}")),
        Ok(Ending::Late { complaints }) => {
            let names = rows.iter().map(|row| row.name);
            let left = names.filter(|name| !report.heard.iter().any(|heard| heard == name));
            let left = left.collect::<Vec<_>>();
            let what = if left.is_empty() {
                "an end by itself".into()
            } else {
                format!("times of {}", left.join(", "))
            };
            report.cut(what, deadline.ended());
            if !complaints.is_empty() {
                report.note(format!("{} said: {complaints}", args.python.display()));
            }
        }
        Ok(Ending::Done { status, .. }) if status.success() => (),
        Ok(Ending::Done { status, complaints }) => {
            report.fault(format!("{}: {status}: {complaints}", args.python.display()));
        }
    }
}

fn run(
    args: &Args,
    folder: &Result<PathBuf, String>,
    artefact: &Artefact,
    rows: &[Row],
    deadline: Deadline,
    see: impl FnMut(&str),
) -> Result<Ending, String> {
    let folder = folder.as_ref().map_err(String::clone)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
    };
    for (name, text) in SCRIPTS {
        write(name, text.as_bytes())?;
    }
    let image = write(&artefact.target.file_name(), &artefact.bytes)?;
    let Place::Cuda(ordinal) = args.device else {
        return Err("they are taken on NVIDIA's devices alone".into());
    };
    let plan = json!({ "parent": process::id(), "image": image, "ordinal": ordinal, "rehearse": args.rehearse,
        "seconds": deadline.left().as_secs_f64() * 0.95, "rows": rows });
    let plan = write("plan.json", plan.to_string().as_bytes())?;
    let mut command = Command::new(&args.python);
    // -B: nothing is written beside the scripts; -u: a line is there when it was said.
    command.args(["-B", "-u"]).arg(folder.join(SCRIPTS[0].0)).arg(plan);
    child::run(&mut command, "name a Python that has torch with --python", deadline, see)
}
