//! The process that runs the kernels: `plesio bench-kernels`. Orders come on stdin, one JSON line each; answers go to
//! stdout.
//!
//! It opens a device, and keeps it. A row is opened, which checks the kernel against the reference and fills its
//! memory; then come rounds of it.

use super::list::{Kernel, kernels};
use super::measure::{floors, time_ns};
use super::memory::Memory;
use super::numpy::Numpy;
use super::plan::{Buffer, Plan, Role, Scale};
use crate::args::{DeviceArg, LevelArg};
use crate::bench::group;
use crate::bench::link::Trouble;
use crate::device;
use crate::failure::{Exit, Failure, MORE_THREADS};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use plesio::{AnyDevice, DeviceChoice, OpenedDevice};
use plesio_cpu::{Cpu, Level};
use plesio_kernels::{KernelError, Reference};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

/// What the process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// First, and once: a process opens a device for good.
    Device(Wanted),
    Row(Ask),
    /// The same row once more, each part of it for so long.
    Round {
        seconds: f64,
    },
}

/// What to compute on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Wanted {
    pub(super) device: DeviceArg,
    pub(super) kernels_dir: Option<PathBuf>,
    pub(super) level: Option<LevelArg>,
}

/// Which row.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Ask {
    /// Its place in the list.
    pub(super) kernel: usize,
    pub(super) size: u32,
    pub(super) sets: usize,
    pub(super) threads: u16,
    pub(super) seed: u64,
    pub(super) numpy: bool,
}

/// What it says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    Device(Found),
    Opened(Opened),
    Done(Round),
    Failed(Trouble),
}

/// What is computed on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Found {
    /// As a command line says it.
    pub(super) name: String,
    /// In words.
    pub(super) found: String,
    pub(super) reason: String,
    /// Instruction set of a CPU.
    pub(super) level: Option<String>,
    pub(super) notes: Vec<String>,
}

/// A row is there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Opened {
    /// Elements of a small call that are not the reference's.
    pub(super) wrong: u64,
    /// And of a rival's that are not ours.
    pub(super) wrong_rival: u64,
}

/// What a call took at the median.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Round {
    pub(super) first_ns: f64,
    /// Of a CPU.
    pub(super) floor_ns: Option<f64>,
    pub(super) numpy_ns: Option<f64>,
    pub(super) last_ns: f64,
}

/// Serves rows until stdin closes. It dies with who started it.
pub(crate) fn run() -> Result<Exit, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|cause| Failure::run("bench", "cannot tie this process to the bench", cause))?;
    let notes = group::enter(None);
    let (mut device, mut row) = (AnyDevice::default(), None);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(order) = serde_json::from_str(&line) else { break };
        let said = match (order, &mut row) {
            (Order::Device(wanted), _) => open(&wanted).map(|(opened, found)| {
                device = opened;
                Said::Device(Found { notes: [&notes[..], &found.notes].concat(), ..found })
            }),
            (Order::Row(ask), _) => {
                drop(row.take()); // Its memory first.
                Row::open(&ask, device).map(|(opened, found)| {
                    row = Some(opened);
                    Said::Opened(found)
                })
            }
            (Order::Round { seconds }, Some(row)) => {
                row.round(Duration::from_secs_f64(seconds)).map(Said::Done)
            }
            (Order::Round { .. }, None) => break,
        };
        let said = said.and_then(|said| on_its_own(device).map(|()| said));
        let said = said.unwrap_or_else(|failure| Said::Failed(failure.into()));
        let line = serde_json::to_string(&said).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(Exit::Ok)
}

/// The device that is wanted; whoever names a level wants the CPU.
fn open(wanted: &Wanted) -> Result<(AnyDevice, Found), Failure> {
    let choice = match (wanted.device.0, wanted.level) {
        (DeviceChoice::Auto, Some(_)) => DeviceChoice::Cpu,
        (choice, _) => choice,
    };
    let OpenedDevice { mut device, found, reason } = device::open(choice, wanted.kernels_dir.as_deref())?;
    let (mut level, mut notes) = (None, Vec::new());
    if let AnyDevice::Cpu(cpu) = &mut device {
        if let (DeviceChoice::Auto, Some(folder)) = (choice, &wanted.kernels_dir) {
            notes.push(format!("the kernels in {} are not used: {reason}", folder.display()));
        }
        if let Some(wanted) = wanted.level.map(LevelArg::level) {
            *cpu = Cpu::with_level(wanted).ok_or_else(|| lacking(wanted))?;
        }
        level = Some(cpu.level().name().to_owned());
    }
    let name = found.split(' ').next().unwrap_or_default().to_owned();
    Ok((device, Found { name, found, reason, level, notes }))
}

/// What a device cannot do the CPU does for it: that is no figure of the device's.
fn on_its_own(device: AnyDevice) -> Result<(), Failure> {
    let news = device.take_news();
    if news.is_empty() {
        return Ok(());
    }
    let failure = Failure::run("device", "the device does not run this kernel", news.join("; "));
    Err(failure.fix("say --device cpu"))
}

fn lacking(level: Level) -> Failure {
    let levels = Level::ALL.into_iter().filter(|level| level.is_available()).map(Level::name);
    let fix = format!("say one of {}", levels.collect::<Vec<_>>().join(", "));
    let what = format!("--level {level} does not work here");
    Failure { exit: Exit::Missing, ..Failure::run("device", what, "this CPU lacks its instructions") }
        .fix(fix)
}

/// A row that is measured.
struct Row {
    kernel: &'static Kernel,
    device: AnyDevice,
    plan: Plan,
    memory: Memory,
    numpy: Option<Numpy>,
}

impl Row {
    fn open(ask: &Ask, device: AnyDevice) -> Result<(Self, Opened), Failure> {
        let unknown = || Failure::run("bench", "there is no such kernel", ask.kernel);
        let kernel = kernels().nth(ask.kernel).ok_or_else(unknown)?;
        let device = match device {
            AnyDevice::Cpu(cpu) => AnyDevice::Cpu(cpu.with_threads(ask.threads.into())),
            other => other,
        };
        let wrong = check(kernel, device, ask.seed)?;
        let plan = (kernel.plan)(Scale::Full(ask.size));
        let memory = Memory::fill(device, &plan, ask.sets, ask.seed)?;
        let mut row = Self { kernel, device, plan, memory, numpy: None };
        let mut opened = Opened { wrong, ..Opened::default() };
        if ask.numpy {
            opened.wrong_rival = row.add_numpy()?;
        }
        Ok((row, opened))
    }

    /// A rival over the same inputs, and how many elements of its first result are not ours.
    fn add_numpy(&mut self) -> Result<u64, Failure> {
        let mut numpy = Numpy::open(self.kernel.name, &self.plan, &self.memory)?;
        let written = self.plan.buffers.iter().filter(|buffer| is_written(buffer));
        let theirs = numpy.results(written.map(Buffer::bytes).sum())?;
        let Self { kernel, device, plan, memory, .. } = self;
        run_first(kernel, *device, memory)?;
        let (mut wrong, mut at) = (0, 0);
        for (index, buffer) in plan.buffers.iter().enumerate() {
            if is_written(buffer) {
                let theirs = theirs.get(at..at + buffer.bytes()).unwrap_or_default();
                let missing = (buffer.count - theirs.len() / buffer.element.bytes()) as u64;
                wrong += buffer.element.differing(memory.first(index), theirs) + missing;
                at += buffer.bytes();
            }
        }
        self.numpy = Some(numpy);
        Ok(wrong)
    }

    fn round(&mut self, length: Duration) -> Result<Round, Failure> {
        let first_ns = self.ours(length)?;
        let floor_ns = match self.device {
            AnyDevice::Cpu(cpu) => {
                let mut calls = floors(cpu, &self.plan, self.memory.sets());
                let crowded = |cause| no_threads(cpu.threads(), cause);
                Some(time_ns(&mut calls, length).map_err(crowded)?)
            }
            _ => None,
        };
        let numpy_ns = self.numpy.as_mut().map(|numpy| numpy.time_ns(length)).transpose()?;
        Ok(Round { first_ns, floor_ns, numpy_ns, last_ns: self.ours(length)? })
    }

    fn ours(&mut self, length: Duration) -> Result<f64, Failure> {
        let calls = self.memory.sets().into_iter().map(|set| (self.kernel.on_device)(self.device, set));
        let mut calls = calls.collect::<Result<Vec<_>, _>>().map_err(refused)?;
        time_ns(&mut calls, length).map_err(refused)
    }
}

fn is_written(buffer: &Buffer) -> bool {
    !matches!(buffer.role, Role::Read | Role::ReadTwice)
}

/// Calls the kernel on its first set.
fn run_first(kernel: &Kernel, device: AnyDevice, memory: &mut Memory) -> Result<(), Failure> {
    let set = memory.sets().into_iter().next();
    set.map_or(Ok(()), |set| (kernel.on_device)(device, set)?()).map_err(refused)
}

/// Elements of a small call that are not the reference's, to the bit.
fn check(kernel: &Kernel, device: AnyDevice, seed: u64) -> Result<u64, Failure> {
    let plan = (kernel.plan)(Scale::Small);
    let memory = || Memory::fill(device, &plan, 1, seed);
    let (mut ours, mut expected) = (memory()?, memory()?);
    run_first(kernel, device, &mut ours)?;
    let set = expected.sets().into_iter().next();
    set.map_or(Ok(()), |set| (kernel.by_reference)(Reference, set)?()).map_err(refused)?;
    let wrong = |(index, buffer): (usize, &Buffer)| {
        buffer.element.differing_bits(ours.first(index), expected.first(index))
    };
    Ok(plan.buffers.iter().enumerate().map(wrong).sum())
}

/// The kernel did its work on those there were: its time would pass for that of as many as were asked for.
fn no_threads(count: usize, cause: std::io::Error) -> Failure {
    let what = format!("the system gives no {count} threads");
    Failure { exit: Exit::Missing, ..Failure::run("bench", what, cause) }.fix(MORE_THREADS)
}

fn refused(cause: KernelError) -> Failure {
    Failure::run("bench", "a kernel refuses what it is given", cause)
        .fix("report this, with the command line")
}
