//! Others that tell the time, on the same two hosts: one serves, one asks, and neither touches the clock.
//!
//! Both hosts share one clock, so whatever offset the one that asks finds is its error.

use crate::args::TimeArg;
use plesio_netns::{CABLE, Pair, Side};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One run of a rival.
pub(super) struct RivalRun<'a> {
    pub(super) pair: &'a Pair,
    /// A folder of this run's own, for sockets and files.
    pub(super) folder: &'a Path,
    pub(super) time: Duration,
    /// Offsets from before are not counted.
    pub(super) settled: Duration,
    pub(super) interrupted: &'a AtomicBool,
}

/// What is missing to run it; none: nothing.
pub(super) fn missing(rival: TimeArg) -> Option<String> {
    let wanted = match rival {
        TimeArg::Chrony => &["chronyd", "chronyc", "setpriv"][..],
        TimeArg::Ptp4l => &["ptp4l", "setpriv"],
        TimeArg::None => &[],
    };
    let absent = wanted.iter().find(|name| find(name).is_none())?;
    let package = match (rival, *absent) {
        (_, "setpriv") => "util-linux",
        (TimeArg::Chrony, _) => "chrony",
        _ => "linuxptp",
    };
    Some(format!("{} is left out: there is no {absent} here; install the package {package}", rival.name()))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where daemons are, whoever's PATH it is.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A daemon in the foreground: killed when this goes, and by the kernel when the driver dies.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended takes no harm.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl RivalRun<'_> {
    /// Offsets that it finds, nanoseconds.
    ///
    /// # Errors
    /// Why there are none, in words.
    pub(super) fn run(&self, rival: TimeArg) -> Result<Vec<f64>, String> {
        match rival {
            TimeArg::Chrony => self.chrony(),
            TimeArg::Ptp4l => self.ptp4l(),
            TimeArg::None => Ok(Vec::new()),
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<String, String> {
        let path = self.file(name);
        fs::write(&path, text).map_err(|error| format!("{path}: {error}"))?;
        Ok(path)
    }

    /// `heard`: what it prints comes by a pipe. What it complains about is kept.
    fn daemon(&self, side: Side, program: &str, line: &[&str], heard: bool) -> Result<Daemon, String> {
        let path = find(program).ok_or_else(|| format!("there is no {program}"))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "ip", "netns", "exec", self.pair.name(side)])
            .arg(path)
            .args(line);
        let complaints = self.file(COMPLAINTS);
        let complaints = fs::File::options().create(true).append(true).open(complaints);
        let complaints = complaints.map_err(|error| format!("{COMPLAINTS}: {error}"))?;
        let stdout = if heard { Stdio::piped() } else { Stdio::null() };
        command.stdin(Stdio::null()).stdout(stdout).stderr(complaints).process_group(0);
        command.spawn().map(Daemon).map_err(|error| format!("{program}: {error}"))
    }

    /// The last thing that any of the daemons complained about.
    fn complaint(&self) -> String {
        let said = fs::read_to_string(self.file(COMPLAINTS)).unwrap_or_default();
        said.lines().last().unwrap_or("it said nothing").chars().take(COMPLAINT_CHARS_MAX).collect()
    }

    /// Client and server with the kernel's stamps of both directions, which NTP has in interleaved exchanges alone.
    fn chrony(&self) -> Result<Vec<f64>, String> {
        let common = |name: &str| {
            format!(
                "cmdport 0\nbindcmdaddress {}\npidfile {}\n",
                self.file(&format!("{name}.sock")),
                self.file(&format!("{name}.pid"))
            )
        };
        let (server, client) = (Side::Left.address(), Side::Right.address());
        let serving = format!("local stratum 8\nallow {client}\nbindaddress {server}\n{}", common("server"));
        // Four exchanges a second.
        let asking =
            format!("server {server} minpoll -2 maxpoll -2 iburst xleave\nport 0\n{}", common("client"));
        let (serving, asking) = (self.write("server.conf", &serving)?, self.write("client.conf", &asking)?);
        let _server =
            self.daemon(Side::Left, "chronyd", &["-x", "-d", "-u", "root", "-f", &serving], false)?;
        let mut client =
            self.daemon(Side::Right, "chronyd", &["-x", "-d", "-u", "root", "-f", &asking], false)?;
        let asks = find("chronyc").ok_or("there is no chronyc")?;
        let begun = Instant::now();
        let mut found = Vec::new();
        while begun.elapsed() < self.time && !self.interrupted.load(Ordering::Acquire) {
            std::thread::sleep(ASK);
            if let Ok(Some(status)) = client.0.try_wait() {
                return Err(format!("chronyd ended: {status}: {}", self.complaint()));
            }
            let line = ["-h", &self.file("client.sock"), "-c", "tracking"];
            let output =
                Command::new(&asks).args(line).output().map_err(|error| format!("chronyc: {error}"))?;
            let offset_ns = tracking_ns(&String::from_utf8_lossy(&output.stdout));
            found.extend(offset_ns.filter(|_| begun.elapsed() >= self.settled));
        }
        enough(found, &format!("chronyc never said an offset; {}", self.complaint()))
    }

    fn ptp4l(&self) -> Result<Vec<f64>, String> {
        let conf = |name: &str, role: &str| {
            // Four exchanges a second; of a clock that it does not steer it tells an offset every second, and not more often.
            let common = "[global]\ntime_stamping software\nnetwork_transport UDPv4\ndelay_mechanism E2E\nlogSyncInterval -2\n\
                logMinDelayReqInterval -2\nlogAnnounceInterval -1\nfree_running 1\nsummary_interval -4\n\
                freq_est_interval 0\n";
            format!("{common}{role}\nuds_address {}\n", self.file(&format!("{name}.uds")))
        };
        let (serving, asking) = (
            self.write("master.conf", &conf("master", "priority1 10"))?,
            self.write("slave.conf", &conf("slave", "slaveOnly 1"))?,
        );
        let _server = self.daemon(Side::Left, "ptp4l", &["-i", CABLE, "-m", "-q", "-f", &serving], false)?;
        let mut client =
            self.daemon(Side::Right, "ptp4l", &["-i", CABLE, "-m", "-q", "-f", &asking], true)?;
        let stdout = client.0.stdout.take().ok_or("no pipe")?;
        let (send, lines) = std::sync::mpsc::channel();
        let hear = move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("hear".into());
        thread.spawn(hear).map_err(|cause| format!("no thread hears it: {cause}"))?;
        let begun = Instant::now();
        let mut found = Vec::new();
        while begun.elapsed() < self.time && !self.interrupted.load(Ordering::Acquire) {
            if let Ok(line) = lines.recv_timeout(ASK) {
                found.extend(offset_ns(&line).filter(|_| begun.elapsed() >= self.settled));
            } else if let Ok(Some(status)) = client.0.try_wait() {
                return Err(format!("ptp4l ended: {status}: {}", self.complaint()));
            }
        }
        enough(found, &format!("ptp4l never said an offset; {}", self.complaint()))
    }
}

fn enough(found: Vec<f64>, why: &str) -> Result<Vec<f64>, String> {
    if found.len() >= FOUND_MIN { Ok(found) } else { Err(why.to_owned()) }
}

/// What the system's clock is off by, of `chronyc -c tracking`.
fn tracking_ns(text: &str) -> Option<f64> {
    let fields: Vec<&str> = text.trim().split(',').collect();
    // Reference, name, stratum, when, offset; "not synchronised" has no reference.
    if fields.first().is_none_or(|id| *id == "00000000" || *id == "7F7F0101") {
        return None;
    }
    let seconds: f64 = fields.get(4)?.parse().ok()?;
    seconds.is_finite().then_some(seconds * 1e9)
}

/// Of `ptp4l[1.5]: master offset -53 s0 freq +0 path delay 1234`.
fn offset_ns(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("offset")?;
    line.contains("path delay").then(|| rest.split_whitespace().next()?.parse().ok()).flatten()
}

const COMPLAINTS: &str = "complaints";
const COMPLAINT_CHARS_MAX: usize = 300;
const ASK: Duration = Duration::from_millis(200);
const FOUND_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_in_what_the_rivals_say() {
        let tracking = "0A4D0001,10.77.0.1,9,1700000000.123456789,-0.000001234,0.000000100,0.000000200,0.5,0,0,0.00001,0.0001,0.2,Normal";
        assert_eq!(tracking_ns(tracking).map(f64::round), Some(-1234.0));
        assert_eq!(tracking_ns("00000000,,0,0.0,0.000000000,0,0,0,0,0,1,1,0,Not synchronised"), None);
        assert_eq!(tracking_ns("506 Cannot talk to daemon"), None);
        let line = "ptp4l[36150.340]: master offset        -53 s0 freq      +0 path delay      1234";
        assert_eq!(offset_ns(line), Some(-53.0));
        assert_eq!(offset_ns("ptp4l[36150.340]: rms  532 max 1221 freq +0 offset"), None);
        assert_eq!(offset_ns("ptp4l[1.0]: selected local clock as best master"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        assert_eq!(missing(TimeArg::None), None);
        if let Some(said) = missing(TimeArg::Ptp4l) {
            assert!(said.contains("install the package"), "{said}");
        }
    }
}
