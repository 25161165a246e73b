//! `rivals`: what others need for the same sums on this machine in the same minutes, and how often as fast ours is.
//!
//! The rivals' programs lie in `benches/rivals/`. What is not installed is said, with the line that brings it; nothing is
//! installed here. Every program runs in a session of its own that the scheduler puts first where it lets us, as the
//! ranks of `plesio bench` do by themselves, and one at a time.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

const USAGE: &str = "\
Usage: cargo xtask rivals [--ranks 2,4,8] [--largest BYTES] [--rounds N]

Times sums of f32 among processes of this machine: ours (plesio bench allreduce) and every rival that is installed, in turn,
--rounds times; prints the medians and their ratios to ours by the same means: shared memory, or sockets. As root on a quiet
machine; takes minutes.
Rivals: Open MPI, MPICH, Gloo, torch, and PCCL where python3 knows it:
  apt-get install --no-install-recommends openmpi-bin libopenmpi-dev mpich libmpich-dev libgloo-dev g++ python3-torch";

/// Ours, and the flags that make it so.
const OURS: [(&str, &[&str]); 5] = [
    ("plesio-shm", &["--path", "shm"]),
    ("plesio-udp", &["--path", "udp", "--protection", "plaintext"]),
    ("plesio-udp-block", &["--path", "udp", "--protection", "plaintext", "--wait", "block"]),
    ("plesio-udp-int8", &["--path", "udp", "--protection", "plaintext", "--codec", "int8"]),
    ("plesio-udp-sealed", &["--path", "udp", "--protection", "sealed"]),
];

/// Median time in ns by (ranks, bytes), one entry per round.
type Times = BTreeMap<(u32, u64), Vec<f64>>;

struct Plan {
    ranks: Vec<u32>,
    largest: u64,
    rounds: u32,
}

/// Something that was built and can be run.
struct Rival {
    name: &'static str,
    /// Over shared memory, and so compared with our shared memory.
    local: bool,
    start: Box<dyn Fn(u32, u64) -> Result<String, String>>,
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let Some(plan) = Plan::read(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let built = root.join("target/rivals");
    fs::create_dir_all(&built).map_err(|cause| format!("cannot make {}: {cause}", built.display()))?;
    let rivals = build(&root.join("benches/rivals"), &built);
    let ours = build_ours(root)?;
    let mut ours_times: Vec<Times> = OURS.iter().map(|_| Times::new()).collect();
    let mut times: Vec<Times> = rivals.iter().map(|_| Times::new()).collect();
    for round in 1..=plan.rounds {
        for &ranks in &plan.ranks {
            eprintln!("round {round} of {}, {ranks} ranks", plan.rounds);
            for ((_, flags), times) in OURS.iter().zip(&mut ours_times) {
                collect(times, &run_ours(&ours, ranks, plan.largest, flags)?);
            }
            for (rival, times) in rivals.iter().zip(&mut times) {
                match (rival.start)(ranks, plan.largest) {
                    Ok(lines) => collect(times, &lines),
                    Err(cause) => eprintln!("{} with {ranks} ranks failed: {cause}", rival.name),
                }
            }
        }
    }
    print(&ours_times, &rivals, &times);
    Ok(())
}

impl Plan {
    fn read(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut plan = Self { ranks: vec![2, 4, 8], largest: 64 << 20, rounds: 3 };
        let mut arguments = arguments.iter();
        while let Some(flag) = arguments.next() {
            if matches!(flag.as_str(), "-h" | "--help") {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{flag} wants a value\n\n{USAGE}"))?;
            let wrong = || format!("{flag} {value}: not a number that it takes\n\n{USAGE}");
            let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
            match flag.as_str() {
                "--ranks" => {
                    plan.ranks = value
                        .split(',')
                        .map(|text| number(text).and_then(|ranks| u32::try_from(ranks).map_err(|_| wrong())))
                        .collect::<Result<_, _>>()?;
                    if plan.ranks.iter().any(|ranks| !(2..=32).contains(ranks)) {
                        return Err(wrong());
                    }
                }
                "--largest" => plan.largest = number(value)?.clamp(1024, 256 << 20),
                "--rounds" => plan.rounds = number(value)?.clamp(1, 100) as u32,
                _ => return Err(format!("unknown flag {flag}\n\n{USAGE}")),
            }
        }
        Ok(Some(plan))
    }
}

/// Builds what can be built, and says what cannot.
fn build(sources: &Path, built: &Path) -> Vec<Rival> {
    let mut rivals: Vec<Rival> = Vec::new();
    let compile = |name: &str, compiler: &str, arguments: &[&str]| -> Option<PathBuf> {
        let program = built.join(name);
        let outcome = Command::new(compiler)
            .args(arguments)
            .arg("-o")
            .arg(&program)
            .args(["-lgloo"].iter().filter(|_| name == "gloo"))
            .output();
        match outcome {
            Ok(output) if output.status.success() => Some(program),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                println!("skipped {name}: {compiler} says {}", said.lines().next().unwrap_or("nothing"));
                None
            }
            Err(cause) => {
                println!("skipped {name}: {compiler}: {cause}");
                None
            }
        }
    };
    let mpi = sources.join("allreduce_mpi.c").display().to_string();
    if let Some(program) = compile("openmpi", "mpicc.openmpi", &["-O2", &mpi]) {
        for (name, local, extra) in [
            ("openmpi", true, &[][..]),
            (
                "openmpi-tcp",
                false,
                &["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"],
            ),
        ] {
            let program = program.clone();
            let start = move |ranks: u32, largest: u64| {
                let mut command = Command::new("mpirun.openmpi");
                command
                    .args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()])
                    .args(extra);
                finish(
                    first(command.arg(&program).arg(largest.to_string()))
                        .map_err(|cause| cause.to_string())?,
                )
            };
            rivals.push(Rival { name, local, start: Box::new(start) });
        }
    }
    if let Some(program) = compile("mpich", "mpicc.mpich", &["-O2", &mpi]) {
        let start = move |ranks: u32, largest: u64| {
            let mut command = Command::new("mpirun.mpich");
            command.args(["-n", &ranks.to_string()]).arg(&program).arg(largest.to_string());
            finish(first(&mut command).map_err(|cause| cause.to_string())?)
        };
        rivals.push(Rival { name: "mpich", local: true, start: Box::new(start) });
    }
    let gloo = sources.join("allreduce_gloo.cc").display().to_string();
    if let Some(program) = compile("gloo", "g++", &["-O3", "-march=native", "-std=c++17", &gloo]) {
        rivals.push(meeting("gloo-tcp", program, None, built.join("meet")));
    }
    for (name, module) in [("torch-tcp", "torch"), ("pccl-tcp", "pccl")] {
        // Debian's is not always the first one.
        let interpreters = ["python3", "/usr/bin/python3"];
        match interpreters.into_iter().find(|interpreter| knows(interpreter, module)) {
            Some(interpreter) => {
                let script = sources.join(format!("allreduce_{module}.py"));
                rivals.push(meeting(name, interpreter.into(), Some(script), built.join("meet")));
            }
            None => println!("skipped {name}: no python3 here has the module {module}"),
        }
    }
    if rivals.is_empty() {
        println!("no rival is installed; see --help for the line that brings them");
    }
    rivals
}

/// Whether an interpreter finds a module and all that it needs.
fn knows(interpreter: &str, module: &str) -> bool {
    let tried = Command::new(interpreter).args(["-c", &format!("import {module}")]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// A rival that is started once for every rank, which meet in a folder; what it needs before its own arguments is `script`.
fn meeting(name: &'static str, program: PathBuf, script: Option<PathBuf>, folder: PathBuf) -> Rival {
    let start = move |ranks: u32, largest: u64| {
        let _absent = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|cause| cause.to_string())?;
        let child = |rank: u32| {
            let mut command = Command::new(&program);
            command.args(&script).args([rank.to_string(), ranks.to_string()]);
            first(command.arg(&folder).arg(largest.to_string())).map_err(|cause| cause.to_string())
        };
        // Whoever is left when the first one has ended is ended with this list.
        let _others: Vec<Program> = (1..ranks).map(child).collect::<Result<_, _>>()?;
        child(0).and_then(finish)
    };
    Rival { name, local: false, start: Box::new(start) }
}

/// A program in a session of its own and what it says. It ends with this value, or with this process.
struct Program {
    child: Child,
    out: Receiver<Vec<u8>>,
    errors: Receiver<Vec<u8>>,
}

impl Program {
    /// Asks or tells its group to end: what leads other groups, as mpirun does, ends them when it is asked.
    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let _ended = Command::new("kill").args([name, "--", &group]).stderr(Stdio::null()).status();
    }

    fn end(&mut self) {
        self.signal("-TERM");
        let until = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        self.signal("-KILL");
        // It may be no group's leader yet.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a program in a session of its own that goes first where the scheduler lets us.
fn first(command: &mut Command) -> std::io::Result<Program> {
    let script = "echo -19 > /proc/self/autogroup 2>/dev/null; exec \"$@\"";
    let mut shell = Command::new("setsid");
    shell.args(["setpriv", "--pdeathsig", "KILL", "sh", "-c", script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut child = shell.spawn()?;
    let (out, errors) = (read(child.stdout.take()), read(child.stderr.take()));
    Ok(Program { child, out, errors })
}

/// What it printed, when it ended well and in time.
fn finish(mut program: Program) -> Result<String, String> {
    let until = Instant::now() + LIMIT;
    let ended = loop {
        match program.child.try_wait() {
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
            Ok(None) => break Err(format!("it was not done after {} s", LIMIT.as_secs())),
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(status.to_string()),
            Err(cause) => break Err(cause.to_string()),
        }
    };
    // What it left behind holds the pipes.
    program.end();
    let text = |pipe: &Receiver<Vec<u8>>| {
        String::from_utf8_lossy(&pipe.recv_timeout(Duration::from_secs(5)).unwrap_or_default()).into_owned()
    };
    let (out, errors) = (text(&program.out), text(&program.errors));
    ended.map_err(|cause| format!("{cause}: {}", errors.lines().last().unwrap_or_default()))?;
    Ok(out)
}

/// All that comes out of a pipe, read beside what else goes on: a full one would hold its writer.
fn read(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is kept; nobody may want it any more.
        let _read = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        let _gone = tell.send(bytes);
    });
    told
}

/// How long a rival may take for all sizes.
const LIMIT: Duration = Duration::from_secs(900);

pub(crate) fn build_ours(root: &Path) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--release", "--package", "plesio-cli"])
        .current_dir(root)
        .status()
        .map_err(|cause| format!("cannot start cargo: {cause}"))?;
    if !status.success() {
        return Err(format!("cargo build ended with {status}"));
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/plesio"))
}

/// Ours, as lines of the same form.
fn run_ours(program: &Path, ranks: u32, largest: u64, flags: &[&str]) -> Result<String, String> {
    let sizes = [1u64 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20];
    let sizes: Vec<String> =
        sizes.iter().filter(|bytes| **bytes <= largest).map(ToString::to_string).collect();
    let output = Command::new(program)
        .args(["bench", "allreduce", "--quiet", "--repeats", "1", "-o", "csv", "--ranks", &ranks.to_string()])
        .args(["--size", &sizes.join(",")])
        .args(flags)
        .output()
        .map_err(|cause| format!("cannot start {}: {cause}", program.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = rows.next().unwrap_or_default();
    let column = |name: &str| head.iter().position(|field| *field == name).ok_or(format!("no column {name}"));
    let (who, ranks, size, time, min, wrong) = (
        column("#who")?,
        column("ranks")?,
        column("size")?,
        column("time")?,
        column("min")?,
        column("#wrong")?,
    );
    let ours = rows.filter(|row| row.get(who) == Some(&"all_reduce"));
    let nanoseconds = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN) * 1e3;
    let line = |row: Vec<&str>| {
        format!(
            "{} {} {} {} {}\n",
            row[ranks],
            row[size],
            nanoseconds(row[time]),
            nanoseconds(row[min]),
            row[wrong]
        )
    };
    Ok(ours.map(line).collect())
}

fn collect(times: &mut Times, lines: &str) {
    for line in lines.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [ranks, bytes, median, _least, wrong] = fields[..] else { continue };
        let (Ok(ranks), Ok(bytes), Ok(median)) = (ranks.parse(), bytes.parse(), median.parse::<f64>()) else {
            continue;
        };
        if wrong != "0" {
            println!("wrong results: {line}");
        }
        if median.is_finite() {
            times.entry((ranks, bytes)).or_default().push(median);
        }
    }
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0
}

/// Medians in microseconds, and in brackets how often as long as ours by the same means.
fn print(ours: &[Times], rivals: &[Rival], times: &[Times]) {
    print!("{:>5} {:>10}", "ranks", "bytes");
    OURS.iter().for_each(|(name, _)| print!(" {name:>17}"));
    rivals.iter().for_each(|rival| print!(" {:>22}", rival.name));
    println!();
    for key @ (ranks, bytes) in ours[0].keys() {
        print!("{ranks:>5} {bytes:>10}");
        let own: Vec<Option<f64>> =
            ours.iter().map(|times| times.get(key).map(|times| median(times))).collect();
        own.iter()
            .for_each(|own| print!(" {:>17}", own.map_or("-".into(), |own| format!("{:.2}", own / 1e3))));
        for (rival, times) in rivals.iter().zip(times) {
            match (times.get(key), own[usize::from(!rival.local)]) {
                (Some(theirs), Some(own)) => {
                    print!(" {:>13.2} ({:>5.2}x)", median(theirs) / 1e3, median(theirs) / own);
                }
                _ => print!(" {:>22}", "-"),
            }
        }
        println!();
    }
    println!(
        "medians in microseconds, of the slowest rank; what has tcp in its name is compared with plesio-udp"
    );
}
