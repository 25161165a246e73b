//! Ceilings and times, which Python takes: it has the buffers, the graphs and the rivals. Its scripts are in this
//! program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plesio_launch::Artefact;
use serde_json::json;

use crate::args::{Args, Place};
use crate::child::{self, Deadline, Ending};
use crate::plan::Row;
use crate::report::Report;

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

/// A folder of this process that goes when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("gpu-bench-{}", std::process::id()));
        // It must not be there: what somebody else put there is not ours to use.
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays hurts nobody.
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Has Python time the rows, and hears what it says.
pub(crate) fn time(
    args: &Args,
    (chip, artefact): (&str, &Artefact),
    rows: &[Row],
    deadline: Deadline,
    report: &mut Report,
) {
    let before = report.rows.len();
    match run(args, artefact, rows, deadline, |line| report.hear(line, rows, chip)) {
        Err(why) => report.note(format!("ceilings and times were left out: {why}")),
        Ok(Ending::Late { complaints }) => {
            report.note(format!(
                "the time was over after {} of {} rows",
                report.rows.len() - before,
                rows.len()
            ));
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
    artefact: &Artefact,
    rows: &[Row],
    deadline: Deadline,
    see: impl FnMut(&str),
) -> Result<Ending, String> {
    let folder = Folder::new()?;
    for (name, text) in SCRIPTS {
        folder.write(name, text.as_bytes())?;
    }
    let image = folder.write(&artefact.target.file_name(), &artefact.bytes)?;
    let Place::Cuda(ordinal) = args.device else {
        return Err("they are taken on NVIDIA's devices alone".into());
    };
    let plan = json!({ "image": image, "ordinal": ordinal, "rehearse": args.rehearse,
        "seconds": deadline.left().as_secs_f64() * 0.95, "rows": rows });
    let plan = folder.write("plan.json", plan.to_string().as_bytes())?;
    let mut command = Command::new(&args.python);
    // -B: nothing is written beside the scripts; -u: a line is there when it was said.
    command.args(["-B", "-u"]).arg(script(&folder.0)).arg(plan);
    child::run(&mut command, deadline, see)
        .map_err(|why| format!("{why}; install Python with torch and Triton, or name it with --python"))
}

fn script(folder: &Path) -> PathBuf {
    folder.join(SCRIPTS[0].0)
}
