//! `plesio doctor`: what this machine offers, what limits it, and one thing to do about each limit.
//!
//! Everything is found by looking or by trying, never by version. A missing thing is a line and not a
//! failure: plesio runs without any of them.

mod arena;
mod probe;

use crate::args::DoctorArgs;
use crate::failure::{Exit, Failure};
use crate::host::{self, Host};
use crate::paint::Paint;
use crate::stdout;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::io::IsTerminal;

/// How good a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Good,
    /// It works, with a limit or a cost.
    Limited,
    /// It is not here; something else takes its place.
    Absent,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    name: &'static str,
    status: Status,
    found: String,
    /// What it means, and what to do where something can be done.
    advice: Option<String>,
}

impl Finding {
    fn new(name: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self { name, status, found: found.into(), advice: None }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// What a mesh node locks by default: its rings, windows and master state at a rank-8 adapter of a small model.
const LOCKED_BYTES_WANTED: u64 = 64 << 20;

/// Looks, and says what there is.
pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let host = Host::probed();
    let findings = findings(&host);
    let output = &args.output;
    let document = json!({
        "schema": "plesio.doctor/1",
        "config": args,
        "host": host,
        "findings": findings,
    });
    if output.json_stream {
        stdout::emit("start", &json!({ "schema": "plesio.doctor/1", "config": args }));
        stdout::emit("end", &document);
    } else if output.json {
        stdout::document(&document);
    } else {
        stdout::text(&table(&findings, Paint::new(output.color, std::io::stdout().is_terminal())));
    }
    Ok(Exit::Ok)
}

fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = vec![
        Finding::new("kernel", Status::Good, &host.kernel),
        cpu(host),
        Finding::new("data plane", if host.tier == "uring" { Status::Good } else { Status::Limited }, {
            format!("{}: {}", host.tier, host.tier_reason)
        }),
        probe::segmentation(),
        probe::timestamping(),
        clock_source(),
        memlock(host),
        huge_pages(),
        probe::socket_buffers(),
        gpu(),
        load(host),
    ];
    let after = findings.iter().position(|finding| finding.name == "huge pages").map_or(0, |at| at + 1);
    findings.splice(after..after, arena::rungs());
    findings
}

fn cpu(host: &Host) -> Finding {
    let level = plesio_cpu::Cpu::detect().level();
    let name = host.cpu.as_deref().unwrap_or(host.architecture);
    let features = host.features.join(" ");
    let found = format!("{name}, {} cores, kernels: {level} (of {features})", host.cores);
    match level {
        plesio_cpu::Level::Scalar => Finding::new("cpu", Status::Limited, found)
            .advise("no vector unit that the kernels know: training and aggregation run on scalar code"),
        _ => Finding::new("cpu", Status::Good, found),
    }
}

fn clock_source() -> Finding {
    const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
    let Some(current) = host::line(format!("{FOLDER}/current_clocksource")) else {
        return Finding::new("clock source", Status::Limited, "the kernel does not say");
    };
    let available = host::line(format!("{FOLDER}/available_clocksource")).unwrap_or_default();
    let found = format!("{current} (of {available})");
    // Others are read through a system call or a device: microseconds instead of nanoseconds.
    if ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page"].contains(&current.as_str()) {
        Finding::new("clock source", Status::Good, found)
    } else {
        Finding::new("clock source", Status::Limited, found)
            .advise("reading this clock is slow; where tsc is available, boot with clocksource=tsc")
    }
}

fn memlock(host: &Host) -> Finding {
    let show = |bytes: Option<u64>| bytes.map_or("no limit".into(), bytes_text);
    let limit = host.memlock;
    let found = format!("{} now, {} at most", show(limit.soft_bytes), show(limit.hard_bytes));
    if limit.soft_bytes.is_none_or(|bytes| bytes >= LOCKED_BYTES_WANTED) {
        Finding::new("memlock", Status::Good, found)
    } else {
        Finding::new("memlock", Status::Limited, found).advise(
            "tensor memory is locked as far as this goes; raise it in limits.conf or with LimitMEMLOCK=",
        )
    }
}

fn huge_pages() -> Finding {
    let total = host::meminfo_count("HugePages_Total").unwrap_or_default();
    let size = host::meminfo_bytes("Hugepagesize").map_or("?".into(), bytes_text);
    let transparent = host::line("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let chosen = transparent.as_deref().and_then(|modes| modes.split(['[', ']']).nth(1)).unwrap_or("none");
    let found = format!("{total} reserved of {size}, transparent for shared memory: {chosen}");
    if total > 0 || matches!(chosen, "always" | "within_size" | "advise" | "force") {
        Finding::new("huge pages", Status::Good, found)
    } else {
        Finding::new("huge pages", Status::Absent, found)
            .advise("tensor memory asks for each by itself, and the arena's line says what it got; it matters for large models only")
    }
}

fn gpu() -> Finding {
    let (chips, remarks) = plesio::device::discover();
    if chips.is_empty() {
        return Finding::new("gpu", Status::Absent, format!("{}; the CPU computes", remarks.join("; ")));
    }
    let kernels = std::env::var_os("PLESIO_KERNELS_DIR").map(std::path::PathBuf::from);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (choice, chip) in chips {
        found.push(format!("{choice} {chip}"));
        if let Err(error) = plesio::device::has_kernels(&chip, kernels.as_deref()) {
            missing.push(format!("{error}; {}", error.fix("PLESIO_KERNELS_DIR=DIR")));
        }
    }
    missing.dedup();
    let found = found.into_iter().chain(remarks).collect::<Vec<_>>().join("; ");
    if missing.is_empty() {
        Finding::new("gpu", Status::Good, found)
    } else {
        Finding::new("gpu", Status::Limited, found).advise(missing.join("; "))
    }
}

fn load(host: &Host) -> Finding {
    let Some([one, five, fifteen]) = host.load else {
        return Finding::new("load", Status::Limited, "the kernel does not say");
    };
    let found = format!("{one} {five} {fifteen} on {} cores", host.cores);
    if one < 0.5 * host.cores as f64 {
        Finding::new("load", Status::Good, found)
    } else {
        Finding::new("load", Status::Limited, found).advise("other programs are busy: timings will be noisy")
    }
}

/// A size for a person.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    let value = bytes as f64 / f64::from(1_u32 << (10 * unit.min(3))) / if unit == 4 { 1024.0 } else { 1.0 };
    let digits = usize::from(value.fract() != 0.0);
    format!("{value:.digits$} {}", UNITS[unit as usize])
}

fn table(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in findings {
        let status = match finding.status {
            Status::Good => paint.green("good   "),
            Status::Limited => paint.red("limited"),
            Status::Absent => paint.dim("absent "),
        };
        let _ = writeln!(text, "{status}  {:<14} {}", finding.name, finding.found);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "{:24} {}", "", paint.dim(advice));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        let sizes = [0, 1023, 8 << 20, 1536, 3 << 40];
        assert_eq!(sizes.map(bytes_text), ["0 B", "1023 B", "8 MiB", "1.5 KiB", "3 TiB"]);
        assert!(bytes_text(u64::MAX).ends_with("TiB"));
    }

    #[test]
    fn a_small_limit_is_a_limit_and_none_is_none() {
        let mut host = Host::look("mio".into(), "a test".into());
        host.memlock = host::Memlock { soft_bytes: Some(0), hard_bytes: Some(8 << 20) };
        let finding = memlock(&host);
        assert_eq!((finding.status, finding.found.as_str()), (Status::Limited, "0 B now, 8 MiB at most"));
        assert!(finding.advice.is_some());
        host.memlock = host::Memlock { soft_bytes: None, hard_bytes: None };
        assert_eq!(memlock(&host).status, Status::Good);
    }

    #[test]
    fn every_finding_is_a_line_that_says_something() {
        let host = Host::look("mio".into(), "a test".into());
        let findings = findings(&host);
        assert!(findings.iter().all(|finding| !finding.found.trim().is_empty()), "{findings:?}");
        let text = table(&findings, Paint(false));
        for name in [
            "kernel",
            "cpu",
            "data plane",
            "offloads",
            "timestamping",
            "clock source",
            "memlock",
            "arena",
            "gpu",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
