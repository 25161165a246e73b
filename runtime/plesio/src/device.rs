//! Which device a node computes on: looked for at start, chosen by measurement or by name, told once.
//!
//! Knows: the devices there may be. Does not know: what is computed on them; all give the same bits. Invariant: a machine with
//! nothing but a CPU gets that, and whoever asked for another is told why it cannot be had.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use plesio_cpu::Cpu;
use plesio_cuda::Cuda;
use plesio_hip::Hip;
use plesio_kernels::{Device, WEIGHT_ONE, for_each_device_method};
pub use plesio_launch::ArtefactError;
use plesio_launch::{Accelerator, Artefacts, Chip, EngineSettings, Runtime, RuntimeError, artefact};
use plesio_memory::{Arena, ArenaError, ArenaPlan, ArenaReport};

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The device that sums a version's contributions fastest, by trial.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA device, by its number.
    Cuda(u32),
    /// An AMD device, by its number.
    Hip(u32),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Hip(ordinal) => write!(f, "hip:{ordinal}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok();
        let choice = match text.split_once(':') {
            None if text == "auto" => Some(Self::Auto),
            None if text == "cpu" => Some(Self::Cpu),
            None if text == "cuda" => Some(Self::Cuda(0)),
            None if text == "hip" => Some(Self::Hip(0)),
            Some(("cuda", ordinal)) => number(ordinal).map(Self::Cuda),
            Some(("hip", ordinal)) => number(ordinal).map(Self::Hip),
            _ => None,
        };
        choice.ok_or_else(|| format!("'{text}' is no device: say auto, cpu, cuda:N or hip:N"))
    }
}

/// A device of any kind.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AnyDevice {
    /// The CPU's vectors.
    Cpu(Cpu),
    /// NVIDIA's.
    Cuda(Accelerator<Cuda>),
    /// AMD's.
    Hip(Accelerator<Hip>),
}

impl Default for AnyDevice {
    fn default() -> Self {
        Self::Cpu(Cpu::detect())
    }
}

/// Hands every call on to the device that this is.
macro_rules! hand_on {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        impl Device for AnyDevice {
            fn name(&self) -> &'static str {
                match self {
                    Self::Cpu(device) => device.name(),
                    Self::Cuda(device) => device.name(),
                    Self::Hip(device) => device.name(),
                }
            }

            $(
                fn $name(&self, $($arg: $type),*) $(-> $ret)? {
                    match self {
                        Self::Cpu(device) => device.$name($($arg),*),
                        Self::Cuda(device) => device.$name($($arg),*),
                        Self::Hip(device) => device.$name($($arg),*),
                    }
                }
            )*
        }
    };
}

for_each_device_method!(hand_on);

impl AnyDevice {
    /// Memory for tensors that the device uses in place where it can.
    ///
    /// # Errors
    /// As [`Arena::map`].
    pub fn arena(&self, plan: &ArenaPlan) -> Result<(Arena, ArenaReport), ArenaError> {
        match self {
            Self::Cpu(_) => Arena::map(plan),
            Self::Cuda(device) => device.arena(plan),
            Self::Hip(device) => device.arena(plan),
        }
    }

    /// What went wrong with it since this was last asked, in words for a person; each kind of trouble is told once. What it
    /// does not do any more the CPU does.
    #[must_use]
    pub fn take_news(&self) -> Vec<String> {
        match self {
            Self::Cpu(_) => Vec::new(),
            Self::Cuda(device) => device.take_news(),
            Self::Hip(device) => device.take_news(),
        }
    }
}

/// A device that was opened, and what is to be said of it.
#[derive(Clone, Debug)]
pub struct OpenedDevice {
    /// For the node and whoever trains on it.
    pub device: AnyDevice,
    /// What it is: `cpu avx512`, `cuda:0 NVIDIA Orin (sm_87, 16 units)`.
    pub found: String,
    /// Why that one.
    pub reason: String,
}

impl Default for OpenedDevice {
    fn default() -> Self {
        let device = Cpu::detect();
        Self { device: AnyDevice::Cpu(device), found: cpu_text(device), reason: "asked for".into() }
    }
}

/// Why a device that was asked for cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceError {
    /// The runtime refuses it, or there is none.
    Runtime {
        /// Which device.
        choice: DeviceChoice,
        /// What the runtime says.
        cause: RuntimeError,
    },
    /// There are no kernels that run on it.
    Kernels {
        /// Which device.
        choice: DeviceChoice,
        /// What is missing.
        cause: ArtefactError,
    },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime { choice, cause } => write!(f, "device {choice}: {cause}"),
            Self::Kernels { choice, cause } => write!(f, "device {choice}: {cause}"),
        }
    }
}

impl std::error::Error for DeviceError {}

/// Opens the device that was asked for. `kernels` is a folder of prebuilt ones that take the place of those in this program.
///
/// # Errors
/// A device that was asked for by name cannot be had, or the folder cannot be read, whatever devices there are. Without a
/// folder the automatic choice never fails: there is a CPU.
pub fn open(choice: DeviceChoice, kernels: Option<&Path>) -> Result<OpenedDevice, DeviceError> {
    let named = "asked for".to_string();
    if let Some(folder) = kernels.filter(|_| choice != DeviceChoice::Cpu) {
        Artefacts::read(folder).map_err(|cause| DeviceError::Kernels { choice, cause })?;
    }
    match choice {
        DeviceChoice::Auto => Ok(choose(kernels)),
        DeviceChoice::Cpu => Ok(OpenedDevice::default()),
        DeviceChoice::Cuda(ordinal) => {
            open_on(choice, Cuda::open(ordinal), kernels, AnyDevice::Cuda).map(|opened| opened.because(named))
        }
        DeviceChoice::Hip(ordinal) => {
            open_on(choice, Hip::open(ordinal), kernels, AnyDevice::Hip).map(|opened| opened.because(named))
        }
    }
}

impl OpenedDevice {
    fn because(self, reason: String) -> Self {
        Self { reason, ..self }
    }
}

fn open_on<R: Runtime>(
    choice: DeviceChoice,
    runtime: Result<R, RuntimeError>,
    kernels: Option<&Path>,
    wrap: fn(Accelerator<R>) -> AnyDevice,
) -> Result<OpenedDevice, DeviceError> {
    let refused = |cause| DeviceError::Runtime { choice, cause };
    let runtime = runtime.map_err(refused)?;
    let found = format!("{choice} {}", runtime.chip());
    let image = image(runtime.chip(), kernels).map_err(|cause| DeviceError::Kernels { choice, cause })?;
    let device = Accelerator::open(runtime, &image, EngineSettings::default()).map_err(refused)?;
    Ok(OpenedDevice { device: wrap(device), found, reason: String::new() })
}

/// The kernels for a chip.
fn image(chip: &Chip, kernels: Option<&Path>) -> Result<Cow<'static, [u8]>, ArtefactError> {
    match kernels {
        Some(folder) => Ok(Artefacts::read(folder)?.choose(chip)?.bytes.to_vec().into()),
        None => Ok((&*artefact::choose(chip)?.bytes).into()),
    }
}

/// Elements of the sum that devices are compared by: a few milliseconds of it.
const TRIAL_ELEMENTS: usize = 1 << 18;
/// Contributions of it.
const TRIAL_SLOTS: usize = 4;
/// How often it is made; the best counts.
const TRIALS: usize = 5;

/// Devices beside the CPU, without opening any: each with its name here, and why there are none or not all. Never fails.
#[must_use]
pub fn discover() -> (Vec<(DeviceChoice, Chip)>, Vec<String>) {
    let (cuda, hip) = (plesio_cuda::discover(), plesio_hip::discover());
    let cuda_chips = cuda.chips.into_iter().map(|chip| (DeviceChoice::Cuda(chip.ordinal), chip));
    let hip_chips = hip.chips.into_iter().map(|chip| (DeviceChoice::Hip(chip.ordinal), chip));
    (cuda_chips.chain(hip_chips).collect(), cuda.remarks.into_iter().chain(hip.remarks).collect())
}

/// Whether there are kernels for a chip.
///
/// # Errors
/// What is missing.
pub fn has_kernels(chip: &Chip, kernels: Option<&Path>) -> Result<(), ArtefactError> {
    image(chip, kernels).map(drop)
}

/// The fastest at what every version takes, and why.
fn choose(kernels: Option<&Path>) -> OpenedDevice {
    let (chips, mut said) = discover();
    let choices = chips.into_iter().map(|(choice, _)| choice);
    let mut best = OpenedDevice::default();
    let mut best_time = None;
    for choice in choices {
        match open(choice, kernels) {
            Ok(opened) => {
                let cpu_time = *best_time.get_or_insert_with(|| trial(best.device).unwrap_or(Duration::MAX));
                let time = match own_trial(opened.device) {
                    Ok(time) => time,
                    Err(why) => {
                        said.push(format!("{} is left out: {why}", opened.found));
                        continue;
                    }
                };
                said.push(format!("{} sums in {} us", opened.found, time.as_micros()));
                if time < cpu_time {
                    (best, best_time) = (opened, Some(time));
                }
            }
            Err(error) => said.push(error.to_string()),
        }
    }
    if let Some(time) = best_time {
        said.push(format!("{} is the fastest, with {} us", best.found, time.as_micros()));
    }
    best.because(said.join("; "))
}

/// The same of a device that did it itself: else the CPU's time would pass for its own.
fn own_trial(device: AnyDevice) -> Result<Duration, String> {
    let time = trial(device);
    let news = device.take_news();
    if news.is_empty() { time } else { Err(news.join("; ")) }
}

/// How long a device takes for the sum of a few contributions in an arena of its own.
fn trial(device: AnyDevice) -> Result<Duration, String> {
    let mut plan = ArenaPlan::new("plesio-trial", usize::MAX);
    let first = plan.push(TRIAL_ELEMENTS * 4);
    for _ in 1..TRIAL_SLOTS {
        plan.push(TRIAL_ELEMENTS * 4);
    }
    plan.budget_bytes = plan.needed_bytes().next_multiple_of(2 << 20);
    let (arena, _) = device.arena(&plan).map_err(|error| error.to_string())?;
    let slots = (first..).take(TRIAL_SLOTS).filter_map(|region| arena.share(arena.whole(region)?).ok());
    let slots: Vec<_> = slots.collect();
    let slots: Vec<&[i32]> = slots.iter().map(|slot| slot.as_i32()).collect();
    let mut sum = vec![0; TRIAL_ELEMENTS];
    let weights = [WEIGHT_ONE / TRIAL_SLOTS as u32; TRIAL_SLOTS];
    let mut best = Duration::MAX;
    for _ in 0..TRIALS {
        let begin = Instant::now();
        device.slot_sum(&weights, &slots, &mut sum).map_err(|error| error.to_string())?;
        best = best.min(begin.elapsed());
    }
    Ok(best)
}

fn cpu_text(device: Cpu) -> String {
    format!("cpu {}", device.level())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(3), DeviceChoice::Hip(0)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "hip:x", "cpu:0", "cuda:4294967296", "CUDA:0", "hip:0 "] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "'{bad}'");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_told_and_not_passed_over() {
        let folder = Path::new("/nonexistent");
        let refused = open(DeviceChoice::Auto, Some(folder)).expect_err("there is no such folder");
        assert!(matches!(refused, DeviceError::Kernels { choice: DeviceChoice::Auto, .. }), "{refused}");
        assert!(refused.to_string().contains("/nonexistent"), "{refused}");
    }

    #[test]
    fn the_automatic_choice_always_finds_something() {
        let opened = open(DeviceChoice::Auto, None).expect("there is a CPU");
        assert!(!opened.found.is_empty() && !opened.reason.is_empty());
    }
}
