//! `compute-sanitizer` over small shapes: this program runs itself under it, where it is installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::args::Args;
use crate::child::{self, Ending};
use crate::deadline::Deadline;
use crate::report::Journal;
use crate::say;

/// What the sanitizer exits with where it found something.
const FOUND: i32 = 86;
/// Its tools, in the order of their worth, and how long each may take.
const TOOLS: [(&str, Duration); 2] =
    [("memcheck", Duration::from_secs(60)), ("racecheck", Duration::from_secs(40))];
const PROGRAM: &str = "compute-sanitizer";

/// Where it is: as asked for, on the path, or where toolkits are installed.
fn find(asked: Option<&Path>) -> Option<PathBuf> {
    if let Some(program) = asked {
        return Some(program.to_path_buf());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let homes = env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().chain(["/usr/local/cuda".into()]);
    let mut places = env::split_paths(&path).chain(homes.map(|home| home.join("bin")));
    places.find_map(|place| Some(place.join(PROGRAM)).filter(|program| program.is_file()))
}

/// Runs every tool.
pub(crate) fn sanitize(args: &Args, deadline: Deadline, report: &Journal) {
    let Some(program) = find(args.sanitizer.as_deref()) else {
        return report.lock().note(format!(
            "{PROGRAM} is not in PATH, CUDA_HOME or /usr/local/cuda, so accesses and races were not looked at; name \
             it with --sanitizer"
        ));
    };
    let own = match env::current_exe() {
        Ok(own) => own,
        Err(error) => {
            return report.lock().note(format!("{PROGRAM} was not run: this program's own path: {error}"));
        }
    };
    for (tool, limit) in TOOLS {
        if deadline.is_over() {
            report.lock().cut(format_args!("{PROGRAM} {tool}"), deadline.ended());
            continue;
        }
        report.begin(format!("{PROGRAM} {tool}"));
        let mut command = Command::new(&program);
        command.args(["--tool", tool, "--error-exitcode", &FOUND.to_string()]).arg(&own);
        command.args(["--small", "--device", &args.device.to_string()]);
        // It ends by itself a little before its time is over: what it did until then counts.
        let limit = deadline.within(limit);
        command.args(["--seconds", &(limit.left().as_secs() * 3 / 4).max(1).to_string()]);
        if let Some(folder) = &args.kernels {
            command.arg("--kernels").arg(folder);
        }
        let mut last = Vec::new();
        let ending = child::run(&mut command, "name another with --sanitizer", limit, |line| {
            last.push(line.to_string());
            last.drain(..last.len().saturating_sub(LAST_LINES));
        });
        match ending {
            Err(why) => report.lock().note(format!("{PROGRAM} {tool} was not run: {why}")),
            Ok(Ending::Late { .. }) => {
                report.lock().cut(format_args!("what {PROGRAM} {tool} did not come to"), deadline.ended());
            }
            Ok(Ending::Done { status, .. }) if status.success() => {
                say(format_args!("{PROGRAM} {tool}: found nothing"))
            }
            Ok(Ending::Done { status, complaints }) => {
                report.lock().fault(format!("{PROGRAM} {tool}: {status}: {} {complaints}", last.join("\n")));
            }
        }
    }
}

const LAST_LINES: usize = 30;
