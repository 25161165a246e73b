//! Do the kernels load, and are they right: every artefact that the chip runs, against the scalar reference and
//! against binary64.
//!
//! Invariant: a check passes only where the device did the work; where the CPU did it instead, that is a fault.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use plesio_conformance::{Effort, Family, families};
use plesio_launch::artefact::Fit;
use plesio_launch::{
    Accelerator, Artefact, Artefacts, Chip, EngineSettings, Fault, Runtime, RuntimeError, Trouble,
};
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::float64;
use crate::report::Journal;
use crate::say;

/// Longest that all checks may take.
const CHECKS: Duration = Duration::from_secs(150);

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// Artefacts that the chip runs, the nearest first; each of the others is said to be for whom.
pub(crate) fn artefacts<'a>(all: &'a Artefacts, chip: &Chip, report: &Journal) -> Vec<&'a Artefact> {
    let mut fitting = Vec::new();
    for (artefact, fit) in all.fits(chip) {
        let outcome = match fit {
            Fit::Runs(distance) => {
                fitting.push((distance, artefact));
                "is for this chip".to_string()
            }
            Fit::Driver(least) => {
                format!("not loaded: needs a driver of CUDA {}.{}", least / 1000, least % 1000 / 10)
            }
            Fit::Other => format!("not for this chip, which is {}", chip.architecture),
        };
        say(format_args!("artefact {}: {} bytes, {outcome}", artefact.target, artefact.bytes.len()));
        report.lock().artefacts.push(object(json!({ "target": artefact.target.to_string(),
            "digest": artefact.digest.to_string(), "len_bytes": artefact.bytes.len(), "outcome": outcome })));
    }
    fitting.sort_by_key(|(distance, _)| *distance);
    fitting.into_iter().map(|(_, artefact)| artefact).collect()
}

/// Loads each artefact and has it checked.
pub(crate) fn checks<R: Runtime>(
    open: &dyn Fn() -> Result<R, RuntimeError>,
    fitting: &[&Artefact],
    effort: Effort,
    deadline: Deadline,
    report: &Journal,
) {
    let deadline = deadline.within(CHECKS);
    for (index, artefact) in fitting.iter().enumerate() {
        let target = artefact.target.to_string();
        let opened =
            open().and_then(|runtime| Accelerator::open(runtime, &artefact.bytes, EngineSettings::default()));
        let device = match opened {
            Ok(device) => device,
            Err(error) => {
                let fix = fix(error.fault);
                report.lock().fault(format!("artefact {target} does not load: {error}; {fix}"));
                continue;
            }
        };
        // The nearest is what the chip gets; of the others a shorter look is enough.
        check(device, &target, if index == 0 { effort } else { Effort::Short }, deadline, report);
    }
}

/// All families on one device; whether all passed.
pub(crate) fn check<R: Runtime>(
    device: Accelerator<R>,
    target: &str,
    effort: Effort,
    deadline: Deadline,
    report: &Journal,
) {
    let own: [Family<Accelerator<R>>; 1] = [("binary64", float64::check)];
    for (name, family) in own.into_iter().chain(families()) {
        if deadline.is_over() {
            report.lock().cut(format_args!("{name} by {target}"), deadline.ended());
            continue;
        }
        report.begin(format!("{name} by {target}"));
        let begin = Instant::now();
        let panicked = catch_unwind(AssertUnwindSafe(|| family(device, effort))).err();
        let wrong = panicked.map(|cause| told(&*cause)).or_else(|| device.take_news().into_iter().next());
        let took_ms = begin.elapsed().as_millis() as u64;
        say(format_args!(
            "{name} by {target}: {}, {took_ms} ms",
            if wrong.is_none() { "right" } else { "WRONG" }
        ));
        report.lock().checks.push(object(
            json!({ "check": name, "by": target, "right": wrong.is_none(), "took_ms": took_ms }),
        ));
        if let Some(why) = wrong {
            report.lock().fault(format!("{name} by {target}: {why}"));
        }
        if let Some(trouble) = device.lost() {
            let fault = if let Trouble::Refused(error) = trouble { error.fault } else { Fault::Lost };
            report.lock().fault(format!("{target} was not checked further; {}", fix(fault)));
            return;
        }
    }
}

/// What mends trouble with a device where no node runs, and where nothing else would do the work.
pub(crate) const fn fix(fault: Fault) -> &'static str {
    match fault {
        Fault::Memory => "end what else takes the device's memory",
        Fault::Image | Fault::Missing => {
            "build kernels for it: cargo xtask kernels --out DIR, and --kernels DIR"
        }
        Fault::Lost => "see what the kernel's log says of the device",
        Fault::Other => "see what the vendor's manual says of that error",
    }
}

/// What somebody panicked with.
pub(crate) fn told(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_string()
}
