//! One call of a device: what it reads, what it runs, what it gives back.
//!
//! Invariant: the caller's slices are written by [`Call::deliver`] alone, after [`Call::wait`] saw the work done. A call that
//! ends otherwise has written nothing.
#![expect(unsafe_code, reason = "a launch takes the parameters that this crate's own methods have filled in")]

use std::ffi::CStr;
use std::mem;
use std::time::{Duration, Instant};

use bytemuck::Pod;

use crate::engine::{Engine, Lane, Trouble};
use crate::kernel::NOTHING;
use crate::memory::Buffer;
use crate::{DeviceAddress, Kernel, Runtime};

/// How long a wait asks again and again before it sleeps between.
const SPIN: Duration = Duration::from_micros(50);
/// How long it sleeps.
const NAP: Duration = Duration::from_micros(50);
/// Smallest scratch buffer that is kept.
const KEPT_BYTES_MIN: usize = 4096;

pub(crate) struct Call<'e, 'c, R: Runtime> {
    engine: &'e Engine<R>,
    /// Taken when the call ends.
    lane: Option<Lane<R>>,
    used: Vec<Used<'c>>,
    kernel: &'static CStr,
    /// Something was submitted since the last wait.
    submitted: bool,
}

struct Used<'c> {
    buffer: Buffer,
    /// Where its first bytes go in the end.
    back: Option<&'c mut [u8]>,
    /// Bytes that the host wants to see.
    wanted: usize,
}

/// A buffer of a call whose contents the host reads when the work is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    index: usize,
    pub(crate) address: DeviceAddress,
}

impl<'e, 'c, R: Runtime> Call<'e, 'c, R> {
    pub(crate) fn new(engine: &'e Engine<R>, lane: Lane<R>) -> Self {
        Self { engine, lane: Some(lane), used: Vec::new(), kernel: c"nothing", submitted: false }
    }

    fn lane(&mut self) -> &mut Lane<R> {
        self.lane.as_mut().expect("a call has its lane until it ends")
    }

    fn take(&mut self, bytes: usize) -> Result<Buffer, Trouble> {
        let (keep, runtime) = (self.engine.settings.keep, &self.engine.runtime);
        let free = &mut self.lane().free;
        let fitting = free.iter().enumerate().filter(|(_, buffer)| buffer.bytes() >= bytes);
        if let Some((index, _)) = fitting.min_by_key(|(_, buffer)| buffer.bytes()) {
            return Ok(free.swap_remove(index));
        }
        let bytes = if keep { bytes.max(KEPT_BYTES_MIN).next_power_of_two() } else { bytes };
        Ok(Buffer::new(runtime, bytes)?)
    }

    fn add(&mut self, buffer: Buffer, back: Option<&'c mut [u8]>, wanted: usize) -> Watched {
        let address = buffer.device();
        self.used.push(Used { buffer, back, wanted });
        Watched { index: self.used.len() - 1, address }
    }

    /// Puts bytes where the device has them; in place where they are pinned. No address for no bytes.
    pub(crate) fn read<T: Pod>(&mut self, from: &[T]) -> Result<DeviceAddress, Trouble> {
        let bytes: &[u8] = bytemuck::cast_slice(from);
        if bytes.is_empty() {
            return Ok(DeviceAddress::default());
        }
        if let Some(address) = self.engine.find_pinned(bytes) {
            return Ok(address);
        }
        Ok(self.stage(bytes)?.address)
    }

    /// The same of bytes that kernels read by words of four: what is pinned, but between words, is copied all the same.
    pub(crate) fn read_words(&mut self, from: &[u8]) -> Result<DeviceAddress, Trouble> {
        match self.engine.find_pinned(from) {
            Some(address) if !address.0.is_multiple_of(4) => Ok(self.stage(from)?.address),
            _ => self.read(from),
        }
    }

    fn stage(&mut self, bytes: &[u8]) -> Result<Watched, Trouble> {
        let mut buffer = self.take(bytes.len())?;
        buffer.host()[..bytes.len()].copy_from_slice(bytes);
        let submitted = buffer.submit_in(&self.engine.runtime, bytes.len(), &self.lane().stream);
        self.submitted = true;
        let watched = self.add(buffer, None, 0);
        submitted?;
        Ok(watched)
    }

    /// Room for what replaces `to` in the end.
    pub(crate) fn output<T: Pod>(&mut self, to: &'c mut [T]) -> Result<DeviceAddress, Trouble> {
        let bytes: &'c mut [u8] = bytemuck::cast_slice_mut(to);
        if bytes.is_empty() {
            return Ok(DeviceAddress::default());
        }
        let (buffer, wanted) = (self.take(bytes.len())?, bytes.len());
        Ok(self.add(buffer, Some(bytes), wanted).address)
    }

    /// A copy of `of` that the device changes and that replaces it in the end.
    pub(crate) fn update<T: Pod>(&mut self, of: &'c mut [T]) -> Result<DeviceAddress, Trouble> {
        let bytes: &'c mut [u8] = bytemuck::cast_slice_mut(of);
        if bytes.is_empty() {
            return Ok(DeviceAddress::default());
        }
        let staged = self.stage(bytes)?;
        let used = &mut self.used[staged.index];
        (used.wanted, used.back) = (bytes.len(), Some(bytes));
        Ok(staged.address)
    }

    /// Memory of the device for this call alone; what it holds at first means nothing.
    pub(crate) fn scratch(&mut self, bytes: usize) -> Result<DeviceAddress, Trouble> {
        let buffer = self.take(bytes.max(1))?;
        Ok(self.add(buffer, None, 0).address)
    }

    /// Words that kernels report to and the host reads; they begin as `start`.
    pub(crate) fn watch(&mut self, start: &[u64]) -> Result<Watched, Trouble> {
        let bytes = bytemuck::cast_slice(start);
        let watched = self.stage(bytes)?;
        self.used[watched.index].wanted = bytes.len();
        Ok(watched)
    }

    /// A report, at first of nothing.
    pub(crate) fn report(&mut self) -> Result<Watched, Trouble> {
        self.watch(&[NOTHING])
    }

    /// Submits a kernel; none for no blocks.
    pub(crate) fn launch<P: Pod>(&mut self, kernel: Kernel, blocks: u64, params: &P) -> Result<(), Trouble> {
        if blocks == 0 {
            return Ok(());
        }
        let count = u32::try_from(blocks).ok().filter(|blocks| *blocks <= i32::MAX as u32);
        let count = count.ok_or(Trouble::TooLarge { blocks })?;
        let function = self.engine.function(kernel)?;
        self.kernel = kernel.name;
        self.submitted = true;
        let (bytes, engine) = (bytemuck::bytes_of(params), self.engine);
        let stream = &self.lane().stream;
        // SAFETY: the methods of this crate pair each kernel with its own struct (a test compares both sides), and fill in
        // addresses of buffers of this call, which stay until it has seen the stream past them, or of pinned memory, which stays.
        unsafe { engine.runtime.launch(function, count, kernel.threads, bytes, stream) }?;
        Ok(())
    }

    /// Waits until everything submitted is done and the host's sides are what the device's are.
    pub(crate) fn wait(&mut self) -> Result<(), Trouble> {
        let Some(lane) = &self.lane else { return Ok(()) };
        for used in &self.used {
            used.buffer.submit_out(&self.engine.runtime, used.wanted, &lane.stream)?;
        }
        self.settle()
    }

    /// Waits until everything submitted is done.
    fn settle(&mut self) -> Result<(), Trouble> {
        let Some(lane) = &self.lane else { return Ok(()) };
        let (runtime, limit) = (&self.engine.runtime, self.engine.settings.limit);
        runtime.record(&lane.event, &lane.stream)?;
        let begin = Instant::now();
        while !runtime.is_done(&lane.event)? {
            let waited = begin.elapsed();
            if waited > limit {
                return Err(Trouble::Hung { kernel: self.kernel, limit });
            }
            if waited < SPIN {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(NAP);
            }
        }
        self.submitted = false;
        Ok(())
    }

    /// The words of a watched buffer, after [`Self::wait`].
    pub(crate) fn words<const N: usize>(&mut self, watched: Watched) -> [u64; N] {
        assert!(!self.submitted, "the device is waited for first");
        let host = self.used[watched.index].buffer.host();
        let mut words = [0; N];
        bytemuck::cast_slice_mut(&mut words).copy_from_slice(&host[..8 * N]);
        words
    }

    /// What was reported, if anything was.
    pub(crate) fn reported(&mut self, watched: Watched) -> Option<usize> {
        let [word] = self.words(watched);
        (word != NOTHING).then(|| usize::try_from(word).unwrap_or(usize::MAX))
    }

    /// Moves the results to where the caller wants them.
    pub(crate) fn deliver(&mut self) {
        assert!(!self.submitted, "the device is waited for first");
        for used in &mut self.used {
            if let Some(back) = used.back.take() {
                back.copy_from_slice(&used.buffer.host()[..back.len()]);
            }
        }
    }
}

impl<R: Runtime> Drop for Call<'_, '_, R> {
    fn drop(&mut self) {
        let over = !self.submitted || self.settle().is_ok();
        let Some(mut lane) = self.lane.take() else { return };
        if over {
            lane.free.extend(mem::take(&mut self.used).into_iter().map(|used| used.buffer));
            self.engine.give_back(lane);
        } else {
            // The device may still use all of it.
            mem::forget(lane);
        }
    }
}

/// Whether all of these begin at multiples of 16 bytes, as kernels are told.
pub(crate) fn aligned(places: &[DeviceAddress]) -> u32 {
    u32::from(places.iter().all(|place| place.0.is_multiple_of(16)))
}
