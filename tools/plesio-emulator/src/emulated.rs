//! The emulator as a runtime: a device without streams of its own, whose memory only copies reach.
#![expect(unsafe_code, reason = "the trait hands over addresses")]

use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plesio_launch::{Chip, DeviceAddress, Fault, Runtime, RuntimeError, Vendor};

use crate::process::{CallError, Process};

/// In which order threads and blocks run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// By their numbers.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Drawn anew after each barrier.
    Random {
        /// The same for the same order.
        seed: u64,
    },
}

/// What device to play.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The order of threads.
    pub order: Order,
    /// 32 or 64.
    pub warp_threads: u32,
    /// Where allocations may begin, bytes: the smaller, the nearer the guard behind them.
    pub align_bytes: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { order: Order::Forward, warp_threads: 32, align_bytes: 16 }
    }
}

/// A device in a process of its own.
#[derive(Debug)]
pub struct Emulated {
    chip: Chip,
    setup: Setup,
    process: Mutex<Process>,
    names: Mutex<Vec<&'static CStr>>,
}

impl Emulated {
    /// Starts the emulator.
    ///
    /// # Errors
    /// The program cannot be started, or does not know the order.
    pub fn start(program: &Path, setup: Setup) -> io::Result<Self> {
        let chip = Chip {
            vendor: if setup.warp_threads == 64 { Vendor::Amd } else { Vendor::Nvidia },
            ordinal: 0,
            name: "emulator".into(),
            architecture: "emulated".into(),
            warp_threads: setup.warp_threads,
            units: 1,
            memory_bytes: 1 << 30,
            integrated: false,
            driver: 0,
        };
        let mut process = Process::start(program)?;
        let order = match setup.order {
            Order::Forward => "forward".into(),
            Order::Reverse => "reverse".into(),
            Order::Random { seed } => format!("random:{seed}"),
        };
        process.call(&[b"o", &length(order.len()), order.as_bytes()]).map_err(|error| match error {
            CallError::Refused(text) => io::Error::other(text),
            CallError::Gone(error) => error,
        })?;
        Ok(Self { chip, setup, process: Mutex::new(process), names: Mutex::default() })
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, call: &'static str, error: CallError) -> RuntimeError {
        match error {
            CallError::Refused(name) => {
                RuntimeError { call, code: 1, name, log: String::new(), fault: Fault::Lost }
            }
            CallError::Gone(error) => RuntimeError {
                call,
                code: 2,
                name: format!("the emulator is gone: {error}"),
                log: String::new(),
                fault: Fault::Lost,
            },
        }
    }
}

fn length(bytes: usize) -> [u8; 8] {
    (bytes as u64).to_le_bytes()
}

/// Work of a graph: what was launched, to be launched again.
type Launch = (usize, u32, u32, Vec<u8>);

/// Everything is done at once, so a stream only remembers what is captured.
#[derive(Debug, Default)]
pub struct Stream(Mutex<Option<Vec<Launch>>>);

/// What was captured.
#[derive(Debug)]
pub struct Graph(Vec<Launch>);

/// A kernel, by its place among those that were asked for.
#[derive(Clone, Copy, Debug)]
pub struct Function(usize);

impl Emulated {
    fn run(&self, (function, blocks, threads, params): &Launch) -> Result<(), RuntimeError> {
        let name = self.names.lock().unwrap_or_else(PoisonError::into_inner)[*function].to_bytes();
        let geometry = [*blocks, *threads, self.setup.warp_threads].map(u32::to_le_bytes).concat();
        let parts = [b"l", &length(name.len())[..], name, &geometry, &length(params.len()), params];
        self.process().call(&parts).map_err(|error| self.refused("launch", error))
    }
}

// SAFETY: memory of the device is the process's and stays until `free`; a call is done before it returns, in the order of the
// calls, so every event is done; nothing on the host is allocated or registered.
unsafe impl Runtime for Emulated {
    const NAME: &'static str = "emulator";
    type Module = ();
    type Function = Function;
    type Stream = Stream;
    type Event = ();
    type Graph = Graph;

    fn chip(&self) -> &Chip {
        &self.chip
    }

    fn load(&self, _image: &[u8]) -> Result<(), RuntimeError> {
        Ok(()) // its kernels are compiled in
    }

    fn function(&self, (): &(), name: &CStr) -> Result<Function, RuntimeError> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = names.iter().position(|known| *known == name) {
            return Ok(Function(index));
        }
        names.push(Box::leak(name.to_owned().into_boxed_c_str()));
        Ok(Function(names.len() - 1))
    }

    fn stream(&self) -> Result<Stream, RuntimeError> {
        Ok(Stream::default())
    }

    fn event(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn record(&self, (): &(), _stream: &Stream) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn is_done(&self, (): &()) -> Result<bool, RuntimeError> {
        Ok(true)
    }

    fn elapsed_ns(&self, (): &(), (): &()) -> Result<u64, RuntimeError> {
        Ok(0) // an emulator has no speed
    }

    fn allocate(&self, bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        let mut process = self.process();
        process
            .call(&[b"a", &length(bytes), &self.setup.align_bytes.to_le_bytes()])
            .and_then(|()| process.word())
            .map(DeviceAddress)
            .map_err(|error| self.refused("allocate", error))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn free(&self, address: DeviceAddress) {
        // Of a device that is gone nothing is left to free.
        let _ = self.process().call(&[b"f", &address.0.to_le_bytes()]);
    }

    fn allocate_host(&self, _bytes: usize) -> Result<(NonNull<u8>, DeviceAddress), RuntimeError> {
        Err(unsupported("allocate_host"))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn free_host(&self, _base: NonNull<u8>) {}

    // SAFETY: the seam says what the caller owes.
    unsafe fn register_host(&self, _base: NonNull<u8>, _bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        Err(unsupported("register_host"))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn unregister_host(&self, _base: NonNull<u8>) {}

    // SAFETY: the seam says what the caller owes.
    unsafe fn copy_in(
        &self,
        to: DeviceAddress,
        from: *const u8,
        bytes: usize,
        _stream: &Stream,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the caller's promise: valid for `bytes`, and nobody writes there.
        let contents = unsafe { slice::from_raw_parts(from, bytes) };
        let parts = [b"w", &to.0.to_le_bytes()[..], &length(bytes), contents];
        self.process().call(&parts).map_err(|error| self.refused("copy_in", error))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: DeviceAddress,
        bytes: usize,
        _stream: &Stream,
    ) -> Result<(), RuntimeError> {
        let mut process = self.process();
        let contents = process
            .call(&[b"r", &from.0.to_le_bytes(), &length(bytes)])
            .and_then(|()| process.contents())
            .map_err(|error| self.refused("copy_out", error))?;
        assert_eq!(contents.len(), bytes, "the emulator answers with what was asked for");
        // SAFETY: the caller's promise: valid for `bytes`, and nobody else uses it.
        unsafe { to.copy_from_nonoverlapping(contents.as_ptr(), bytes) };
        Ok(())
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn fill(
        &self,
        at: DeviceAddress,
        value: u8,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        let contents = vec![value; bytes];
        // SAFETY: the vector is that long, and the caller's promise holds for the range.
        unsafe { self.copy_in(at, contents.as_ptr(), bytes, stream) }
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn launch(
        &self,
        function: Function,
        blocks: u32,
        threads: u32,
        params: &[u8],
        stream: &Stream,
    ) -> Result<(), RuntimeError> {
        let launch = (function.0, blocks, threads, params.to_vec());
        if let Some(captured) = stream.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            captured.push(launch);
            return Ok(());
        }
        self.run(&launch)
    }

    fn begin_capture(&self, stream: &Stream) -> Result<(), RuntimeError> {
        *stream.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&self, stream: &Stream) -> Result<Graph, RuntimeError> {
        let captured = stream.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        captured.map(Graph).ok_or_else(|| unsupported("end_capture"))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn launch_graph(&self, graph: &Graph, _stream: &Stream) -> Result<(), RuntimeError> {
        graph.0.iter().try_for_each(|launch| self.run(launch))
    }
}

fn unsupported(call: &'static str) -> RuntimeError {
    RuntimeError { call, code: 3, name: "not supported".into(), log: String::new(), fault: Fault::Memory }
}
