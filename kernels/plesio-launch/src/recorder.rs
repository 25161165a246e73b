//! A runtime without a device: what calls would copy and launch there is written down and not done.
//!
//! Knows: buffers, by numbers that their addresses bear, what went into them first, and launches with their
//! parameters. Does not know: what a kernel computes. Invariant: an address names its buffer, so the parameters of a
//! launch, and lists of addresses that kernels read, can be told for any other memory ([`Recording::places`]).
//!
//! What goes in and out needs a face, because a call moves results by itself: a buffer comes back as it went in, and
//! one that nothing went into comes back with [`mark`] of its number in its first eight bytes.
#![expect(unsafe_code, reason = "the seam hands over addresses")]

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Accelerator, Chip, DeviceAddress, EngineSettings, Fault, Runtime, RuntimeError};

/// What addresses begin with: no pair of numbers in parameters that mean anything, and as a float a NaN.
const PREFIX: u64 = 0x7FA5;
/// Bits of an address within its buffer, and bits that number the buffer.
const OFFSET_BITS: u32 = 32;
const NUMBER_BITS: u32 = 16;
/// Bytes of a buffer's first contents that are kept.
pub const HEAD_BYTES: usize = 4096;
/// Longest buffer, bytes.
const BUFFER_BYTES_MAX: usize = 1 << OFFSET_BITS;

/// A buffer that a call asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecordedBuffer {
    /// Its length.
    pub len_bytes: usize,
    /// The first of what went into it, [`HEAD_BYTES`] at most; empty where a kernel writes it first.
    pub head: Vec<u8>,
}

/// A kernel that a call submitted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordedLaunch {
    /// The kernel's symbol.
    pub kernel: String,
    /// Blocks of the launch.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// The struct that it takes, with addresses of this recording.
    pub params: Vec<u8>,
}

/// An address among bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Where the eight bytes begin.
    pub at_bytes: usize,
    /// Which buffer they name.
    pub buffer: usize,
    /// Where in it.
    pub offset_bytes: u64,
}

/// What some calls did, in their order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recording {
    /// By their numbers.
    pub buffers: Vec<RecordedBuffer>,
    /// One after the other.
    pub launches: Vec<RecordedLaunch>,
}

impl Recording {
    /// The addresses in parameters or in a buffer's contents; none of a buffer that is not here.
    ///
    /// # Errors
    /// The first word that looks like an address of no buffer, or of beyond its end.
    pub fn places(&self, bytes: &[u8]) -> Result<Vec<Place>, u64> {
        let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        let addresses = words.enumerate().filter(|(_, word)| word >> (OFFSET_BITS + NUMBER_BITS) == PREFIX);
        let place = |(index, word): (usize, u64)| {
            let buffer = (word >> OFFSET_BITS) as usize & ((1 << NUMBER_BITS) - 1);
            let offset_bytes = word & ((1 << OFFSET_BITS) - 1);
            let inside = self.buffers.get(buffer).is_some_and(|known| offset_bytes < known.len_bytes as u64);
            let place = Place { at_bytes: 8 * index, buffer, offset_bytes };
            if inside { Ok(place) } else { Err(word) }
        };
        addresses.map(place).collect()
    }
}

/// What a buffer that nothing went into comes back with.
#[must_use]
pub fn mark(buffer: usize) -> u64 {
    address(buffer).0
}

fn address(buffer: usize) -> DeviceAddress {
    DeviceAddress(PREFIX << (OFFSET_BITS + NUMBER_BITS) | (buffer as u64) << OFFSET_BITS)
}

/// The runtime that writes down.
#[derive(Debug)]
pub struct Recorder {
    chip: Chip,
    tape: Mutex<Recording>,
    names: Mutex<Vec<CString>>,
}

impl Recorder {
    /// A device whose launches are written down, for a chip that would do them. Its buffers are as long as what they
    /// hold.
    ///
    /// # Panics
    /// Never: a recorder takes any image.
    #[must_use]
    pub fn open(chip: &Chip) -> Accelerator<Self> {
        // A chip that shares the host's memory has nothing copied, and then no contents would be seen.
        let chip = Chip { integrated: false, ..chip.clone() };
        let recorder = Self { chip, tape: Mutex::default(), names: Mutex::default() };
        let settings = EngineSettings { keep: false, ..EngineSettings::default() };
        Accelerator::open(recorder, b"", settings).expect("it takes any image")
    }

    /// What was written down since this was last asked.
    #[must_use]
    pub fn take(&self) -> Recording {
        std::mem::take(&mut *held(&self.tape))
    }

    /// The buffer that an address of this runtime names.
    fn with_buffer(
        &self,
        at: DeviceAddress,
        see: impl FnOnce(&mut RecordedBuffer),
    ) -> Result<(), RuntimeError> {
        let mut tape = held(&self.tape);
        let place = tape.places(&at.0.to_ne_bytes()).ok().and_then(|places| places.first().copied());
        let known =
            place.filter(|place| place.offset_bytes == 0).ok_or_else(|| refused("copy", Fault::Other))?;
        see(&mut tape.buffers[known.buffer]);
        Ok(())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(call: &'static str, fault: Fault) -> RuntimeError {
    RuntimeError { call, code: 0, name: "a recorder does not".into(), log: String::new(), fault }
}

// SAFETY: addresses are of no memory at all, and nothing is launched: there is nothing that a call could use after
// it.
unsafe impl Runtime for Recorder {
    const NAME: &'static str = "recorder";
    type Module = ();
    type Function = usize;
    type Stream = ();
    type Event = ();
    type Graph = ();

    fn chip(&self) -> &Chip {
        &self.chip
    }

    fn load(&self, _image: &[u8]) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn function(&self, (): &(), name: &CStr) -> Result<usize, RuntimeError> {
        let mut names = held(&self.names);
        names.push(name.to_owned());
        Ok(names.len() - 1)
    }

    fn stream(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn event(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn record(&self, (): &(), (): &()) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn is_done(&self, (): &()) -> Result<bool, RuntimeError> {
        Ok(true)
    }

    fn elapsed_ns(&self, (): &(), (): &()) -> Result<u64, RuntimeError> {
        Ok(0) // nothing is done, in no time
    }

    fn allocate(&self, len_bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        let mut tape = held(&self.tape);
        let number = tape.buffers.len();
        if number >> NUMBER_BITS != 0 || len_bytes > BUFFER_BYTES_MAX {
            return Err(refused("allocate", Fault::Memory));
        }
        tape.buffers.push(RecordedBuffer { len_bytes, head: Vec::new() });
        Ok(address(number))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn free(&self, _address: DeviceAddress) {}

    fn allocate_host(&self, _bytes: usize) -> Result<(NonNull<u8>, DeviceAddress), RuntimeError> {
        Err(refused("allocate_host", Fault::Memory))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn free_host(&self, _base: NonNull<u8>) {}

    // SAFETY: the seam says what the caller owes.
    unsafe fn register_host(&self, _base: NonNull<u8>, _bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        Err(refused("register_host", Fault::Memory))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn unregister_host(&self, _base: NonNull<u8>) {}

    // SAFETY: the seam says what the caller owes.
    unsafe fn copy_in(
        &self,
        to: DeviceAddress,
        from: *const u8,
        bytes: usize,
        (): &(),
    ) -> Result<(), RuntimeError> {
        // SAFETY: the caller's promise: valid for `bytes`, and nobody writes there.
        let contents = unsafe { slice::from_raw_parts(from, bytes) };
        self.with_buffer(to, |buffer| buffer.head = contents[..bytes.min(HEAD_BYTES)].to_vec())
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: DeviceAddress,
        bytes: usize,
        (): &(),
    ) -> Result<(), RuntimeError> {
        // SAFETY: the caller's promise: valid for `bytes`, and nobody else uses it.
        let room = unsafe { slice::from_raw_parts_mut(to, bytes) };
        self.with_buffer(from, |buffer| {
            let own = from.0.to_ne_bytes();
            let face = if buffer.head.is_empty() { &own[..] } else { &buffer.head };
            let shown = face.len().min(bytes);
            room[..shown].copy_from_slice(&face[..shown]);
        })
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn fill(
        &self,
        _at: DeviceAddress,
        _value: u8,
        _bytes: usize,
        (): &(),
    ) -> Result<(), RuntimeError> {
        Err(refused("fill", Fault::Other)) // no call fills: what it wanted would be lost here
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn launch(
        &self,
        function: usize,
        blocks: u32,
        threads: u32,
        params: &[u8],
        (): &(),
    ) -> Result<(), RuntimeError> {
        let kernel = held(&self.names)[function].to_string_lossy().into_owned();
        held(&self.tape).launches.push(RecordedLaunch { kernel, blocks, threads, params: params.to_vec() });
        Ok(())
    }

    fn begin_capture(&self, (): &()) -> Result<(), RuntimeError> {
        Err(refused("begin_capture", Fault::Other))
    }

    fn end_capture(&self, (): &()) -> Result<(), RuntimeError> {
        Err(refused("end_capture", Fault::Other))
    }

    // SAFETY: the seam says what the caller owes.
    unsafe fn launch_graph(&self, (): &(), (): &()) -> Result<(), RuntimeError> {
        Err(refused("launch_graph", Fault::Other))
    }
}

#[cfg(test)]
mod tests {
    use plesio_kernels::Device;

    use super::*;
    use crate::Vendor;

    fn chip() -> Chip {
        Chip {
            vendor: Vendor::Nvidia,
            ordinal: 0,
            name: "none".into(),
            architecture: "sm_90".into(),
            warp_threads: 32,
            units: 1,
            memory_bytes: 0,
            integrated: true,
            driver: 0,
        }
    }

    #[test]
    fn a_call_leaves_its_launches_with_addresses_of_its_buffers() {
        let device = Recorder::open(&chip());
        let (x, mut out) = (vec![3.5f32; 5000], vec![0.0f32; 5000]);
        device.weighted_sum(&[1.0, 2.0], &[&x, &x], &mut out).expect("lengths agree");
        assert_eq!(device.take_news(), Vec::<String>::new(), "nothing was refused");
        let recording = device.runtime().take();
        let names: Vec<_> = recording.launches.iter().map(|launch| launch.kernel.as_str()).collect();
        assert_eq!(names, ["plesio_weighted_sum", "plesio_fold_norms"]);
        assert_eq!(recording.launches[0].blocks, 5);
        let places = recording.places(&recording.launches[0].params).expect("all are buffers");
        // Two inputs, the sum, the partial sums of squares.
        let lengths: Vec<_> = places.iter().map(|place| recording.buffers[place.buffer].len_bytes).collect();
        assert_eq!(lengths, [20_000, 20_000, 20_000, 20]);
        assert_eq!(&recording.buffers[places[0].buffer].head[..4], &3.5f32.to_ne_bytes());
        let face: &[u8] = bytemuck::cast_slice(&out);
        assert_eq!(face[..8], mark(places[2].buffer).to_ne_bytes());
        assert_eq!(device.runtime().take(), Recording::default(), "it was taken");
    }

    #[test]
    fn what_went_in_comes_back_so_that_nothing_is_reported() {
        let device = Recorder::open(&chip());
        let mut master = vec![7i64; 100];
        device.commit(&[1], &[&[5; 100]], &mut master).expect("nothing overflows where nothing is added");
        assert_eq!(master, [7; 100]);
    }

    #[test]
    fn an_address_of_no_buffer_or_beyond_its_end_is_told() {
        let recording = Recording {
            buffers: vec![RecordedBuffer { len_bytes: 16, head: Vec::new() }],
            launches: Vec::new(),
        };
        assert_eq!(
            recording.places(&address(0).add(15).0.to_ne_bytes()),
            Ok(vec![Place { at_bytes: 0, buffer: 0, offset_bytes: 15 }])
        );
        for wrong in [address(0).add(16).0, address(1).0] {
            assert_eq!(recording.places(&wrong.to_ne_bytes()), Err(wrong));
        }
        assert_eq!(recording.places(&[0xFF; 24]), Ok(Vec::new()), "a report of nothing is no address");
    }
}
