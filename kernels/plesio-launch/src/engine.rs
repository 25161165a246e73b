//! One device at work: its kernels, its streams, its scratch memory, and what to do when it fails.
//!
//! Knows: that a call either gives its results whole, or gives nothing and is done by the CPU instead. Does not know: what a
//! kernel computes. Invariant: what a device may still use is never freed; a device that hung once is never asked again.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use plesio_cpu::Cpu;

use crate::call::Call;
use crate::memory::{Buffer, Pinned};
use crate::{Fault, Kernel, Runtime, RuntimeError};

/// Why a call was not done by the device. What mends it is the caller's to say.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Trouble {
    /// The runtime refused.
    Refused(RuntimeError),
    /// The device did not finish in time.
    Hung {
        /// What was launched last.
        kernel: &'static CStr,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The work is larger than a launch can be.
    TooLarge {
        /// Blocks that it takes.
        blocks: u64,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Hung { kernel, limit } => write!(
                f,
                "{} was not done after {} ms: the device hangs",
                kernel.to_string_lossy(),
                limit.as_millis()
            ),
            Self::TooLarge { blocks } => write!(f, "{blocks} blocks are more than a launch takes"),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<RuntimeError> for Trouble {
    fn from(error: RuntimeError) -> Self {
        Self::Refused(error)
    }
}

impl Trouble {
    /// Whether the device is of no use from now on.
    fn is_final(&self) -> bool {
        match self {
            Self::Refused(error) => error.fault != Fault::Memory,
            Self::Hung { .. } => true,
            Self::TooLarge { .. } => false,
        }
    }
}

/// How a device is used.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// How long a call may take before the device counts as hung; default 10 s.
    pub limit: Duration,
    /// Keep scratch memory for the next call; default true. Without it each buffer is as long as what it holds, so that an
    /// emulator sees every access beyond it.
    pub keep: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { limit: Duration::from_secs(10), keep: true }
    }
}

/// A stream with the scratch memory of the calls that use it.
#[derive(Debug)]
pub(crate) struct Lane<R: Runtime> {
    pub(crate) stream: R::Stream,
    pub(crate) event: R::Event,
    pub(crate) free: Vec<Buffer>,
}

/// A device at work.
#[derive(Debug)]
pub(crate) struct Engine<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) settings: EngineSettings,
    pub(crate) cpu: Cpu,
    module: R::Module,
    functions: Mutex<BTreeMap<&'static CStr, R::Function>>,
    lanes: Mutex<Vec<Lane<R>>>,
    pinned: RwLock<Vec<Pinned>>,
    /// Why the device is not asked any more.
    lost: OnceLock<Trouble>,
    /// A call that the device could not do, while it can still do others: told once.
    short: OnceLock<()>,
    /// What is to be told, and was not yet.
    news: Mutex<Vec<String>>,
    has_news: AtomicBool,
}

impl<R: Runtime> Engine<R> {
    pub(crate) fn new(runtime: R, image: &[u8], settings: EngineSettings) -> Result<Self, RuntimeError> {
        let module = runtime.load(image)?;
        Ok(Self {
            runtime,
            settings,
            cpu: Cpu::detect(),
            module,
            functions: Mutex::default(),
            lanes: Mutex::default(),
            pinned: RwLock::default(),
            lost: OnceLock::new(),
            short: OnceLock::new(),
            news: Mutex::default(),
            has_news: AtomicBool::new(false),
        })
    }

    /// Has the device do `work`; nothing when it cannot, and then nothing was written.
    pub(crate) fn attempt<'c, T>(
        &self,
        work: impl FnOnce(&mut Call<'_, 'c, R>) -> Result<T, Trouble>,
    ) -> Option<T> {
        if self.lost.get().is_some() {
            return None;
        }
        let done = self.lane().map_err(Trouble::from).and_then(|lane| work(&mut Call::new(self, lane)));
        match done {
            Ok(result) => Some(result),
            Err(trouble) => {
                self.note(trouble);
                None
            }
        }
    }

    fn note(&self, trouble: Trouble) {
        let text = trouble.to_string();
        let first =
            if trouble.is_final() { self.lost.set(trouble).is_ok() } else { self.short.set(()).is_ok() };
        if first {
            held(&self.news).push(text);
            self.has_news.store(true, Ordering::Release);
        }
    }

    /// What went wrong since this was last asked; each kind of trouble once.
    pub(crate) fn take_news(&self) -> Vec<String> {
        if self.has_news.swap(false, Ordering::Acquire) {
            std::mem::take(&mut *held(&self.news))
        } else {
            Vec::new()
        }
    }

    /// Why the device is not asked any more, if it is not.
    pub(crate) fn lost(&self) -> Option<&Trouble> {
        self.lost.get()
    }

    pub(crate) fn function(&self, kernel: Kernel) -> Result<R::Function, RuntimeError> {
        let mut functions = held(&self.functions);
        if let Some(function) = functions.get(kernel.name) {
            return Ok(*function);
        }
        let function = self.runtime.function(&self.module, kernel.name)?;
        functions.insert(kernel.name, function);
        Ok(function)
    }

    fn lane(&self) -> Result<Lane<R>, RuntimeError> {
        if let Some(lane) = held(&self.lanes).pop() {
            return Ok(lane);
        }
        Ok(Lane { stream: self.runtime.stream()?, event: self.runtime.event()?, free: Vec::new() })
    }

    /// Takes back a lane on which nothing is under way.
    pub(crate) fn give_back(&self, mut lane: Lane<R>) {
        if !self.settings.keep {
            lane.free.drain(..).for_each(|buffer| buffer.free(&self.runtime));
        }
        held(&self.lanes).push(lane);
    }

    pub(crate) fn add_pinned(&self, pinned: Pinned) {
        self.pinned.write().unwrap_or_else(PoisonError::into_inner).push(pinned);
    }

    /// Where the device finds these bytes in place, if they were pinned.
    pub(crate) fn find_pinned(&self, bytes: &[u8]) -> Option<crate::DeviceAddress> {
        let pinned = self.pinned.read().unwrap_or_else(PoisonError::into_inner);
        pinned.iter().find_map(|one| one.find(bytes))
    }
}

/// Nothing that is kept under these locks can be half done.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
