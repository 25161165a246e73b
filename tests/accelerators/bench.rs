//! A device with one kernel and one stream: what a story works with. The seam's contracts are kept here, so that
//! stories are safe.
#![expect(unsafe_code, reason = "the seam to a device takes addresses")]

use std::ptr::NonNull;
use std::time::{Duration, Instant};

use plesio_launch::{DeviceAddress, Fault, Runtime, RuntimeError, Vendor};

use crate::images;

/// The kernel of these tests: `out[e] = x[e] * factor + out[e]`, by blocks of [`THREADS`].
pub(crate) const KERNEL: &str = "plesio_test_scale";
pub(crate) const THREADS: u32 = 64;
/// Longest wait for anything that is to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image with the kernel for the chip that the fakes are when nothing else is said.
pub(crate) fn image(vendor: Vendor) -> Vec<u8> {
    match vendor {
        Vendor::Nvidia => images::ptx("7.0", "sm_75", &[KERNEL]),
        Vendor::Amd => images::code_object(0x4c, &[KERNEL]),
    }
}

/// Numbers on a device. Where they were is given back with [`Numbers::free`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) at: DeviceAddress,
    count: usize,
}

/// A device, its kernel, a stream.
pub(crate) struct Bench<'r, R: Runtime> {
    pub(crate) runtime: &'r R,
    pub(crate) module: R::Module,
    pub(crate) stream: R::Stream,
    scale: R::Function,
}

impl<'r, R: Runtime> Bench<'r, R> {
    pub(crate) fn new(runtime: &'r R) -> Self {
        let module = runtime.load(&image(runtime.chip().vendor)).expect("the image is for this chip");
        let scale = runtime.function(&module, c"plesio_test_scale").expect("the image has it");
        Self { runtime, module, stream: runtime.stream().expect("a stream"), scale }
    }

    /// Memory of the device with these numbers in it.
    pub(crate) fn put(&self, numbers: &[f32]) -> Numbers {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let at = self.runtime.allocate(bytes.len()).expect("there is room");
        // SAFETY: the memory is as long as the bytes, and both stay until the wait is over.
        unsafe { self.runtime.copy_in(at, bytes.as_ptr(), bytes.len(), &self.stream) }.expect("a copy");
        self.wait().expect("the copy is done");
        Numbers { at, count: numbers.len() }
    }

    pub(crate) fn get(&self, numbers: Numbers) -> Vec<f32> {
        let mut bytes = vec![0; numbers.count * 4];
        // SAFETY: as in `put`.
        unsafe { self.runtime.copy_out(bytes.as_mut_ptr(), numbers.at, bytes.len(), &self.stream) }
            .expect("a copy");
        self.wait().expect("the copy is done");
        floats(&bytes)
    }

    pub(crate) fn fill(&self, numbers: Numbers, value: u8) -> Result<(), RuntimeError> {
        // SAFETY: the memory is so long, and freed after a wait.
        unsafe { self.runtime.fill(numbers.at, value, numbers.count * 4, &self.stream) }
    }

    /// Copies from beyond the end of what was allocated: a runtime refuses it.
    pub(crate) fn get_beyond(&self, numbers: Numbers) -> Result<(), RuntimeError> {
        let mut bytes = vec![0; numbers.count * 4 + 1];
        // SAFETY: the device refuses the range, so nothing is written; else the bytes are here until the wait is
        // over.
        let copied =
            unsafe { self.runtime.copy_out(bytes.as_mut_ptr(), numbers.at, bytes.len(), &self.stream) };
        self.wait()?;
        copied
    }

    /// Submits the kernel over numbers of the device.
    pub(crate) fn scale(&self, x: Numbers, factor: f32, out: Numbers) -> Result<(), RuntimeError> {
        assert_eq!(x.count, out.count);
        self.scale_by(x.count.div_ceil(THREADS as usize) as u32, THREADS, x, factor, out)
    }

    /// Submits it with any shape.
    pub(crate) fn scale_by(
        &self,
        blocks: u32,
        threads: u32,
        x: Numbers,
        factor: f32,
        out: Numbers,
    ) -> Result<(), RuntimeError> {
        let params = [
            x.at.0.to_ne_bytes().as_slice(),
            &out.at.0.to_ne_bytes(),
            &(x.count as u64).to_ne_bytes(),
            &factor.to_ne_bytes(),
            &[0; 4],
        ]
        .concat();
        // SAFETY: this is the kernel's struct; it stays within `count` numbers, which are freed after a wait.
        unsafe { self.runtime.launch(self.scale, blocks, threads, &params, &self.stream) }
    }

    /// Submits what was recorded from this bench, whose numbers are still there.
    pub(crate) fn replay(&self, graph: &R::Graph) -> Result<(), RuntimeError> {
        // SAFETY: the caller freed none of the numbers.
        unsafe { self.runtime.launch_graph(graph, &self.stream) }
    }

    /// Until everything that was submitted is done.
    pub(crate) fn wait(&self) -> Result<(), RuntimeError> {
        let event = self.runtime.event()?;
        self.runtime.record(&event, &self.stream)?;
        let begin = Instant::now();
        while !self.runtime.is_done(&event)? {
            assert!(begin.elapsed() < PATIENCE, "the stream does not come to its event");
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    pub(crate) fn free(&self, numbers: Numbers) {
        // SAFETY: from `put`, and every story waits before it frees.
        unsafe { self.runtime.free(numbers.at) }
    }

    /// Numbers in memory that both sides use, by the driver's allocation.
    pub(crate) fn shared(&self, count: usize) -> (NonNull<u8>, Numbers) {
        let (base, at) = self.runtime.allocate_host(count * 4).expect("there is room");
        (base, Numbers { at, count })
    }

    /// What the host sees of them.
    pub(crate) fn seen(base: NonNull<u8>, numbers: Numbers) -> Vec<f32> {
        let mut bytes = vec![0u8; numbers.count * 4];
        // SAFETY: so many bytes are there, and every story waits before it looks.
        unsafe { base.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        floats(&bytes)
    }

    pub(crate) fn free_shared(&self, base: NonNull<u8>) {
        // SAFETY: from `shared`, and every story waits before it frees.
        unsafe { self.runtime.free_host(base) }
    }

    /// Lends memory of the host to the device while `story` is told.
    pub(crate) fn lend<T>(
        &self,
        numbers: &mut [f32],
        story: impl FnOnce(Numbers) -> T,
    ) -> Result<T, RuntimeError> {
        let base = NonNull::from(&mut *numbers).cast::<u8>();
        // SAFETY: the slice outlives the registration, which ends below.
        let at = unsafe { self.runtime.register_host(base, size_of_val(numbers)) }?;
        let told = story(Numbers { at, count: numbers.len() });
        // SAFETY: every story waits before it ends.
        unsafe { self.runtime.unregister_host(base) };
        Ok(told)
    }

    /// Lends memory that is not there.
    pub(crate) fn lend_nothing(&self) -> RuntimeError {
        // SAFETY: the range is in no mapping and the runtime refuses it, so no byte of it is ever used.
        let lent = unsafe {
            self.runtime.register_host(
                NonNull::without_provenance(std::num::NonZero::new(4096).expect("not zero")),
                4096,
            )
        };
        lent.expect_err("nothing is mapped there")
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_ne_bytes(word.try_into().expect("four bytes"))).collect()
}

/// The fault of what must have failed.
pub(crate) fn fault<T: std::fmt::Debug>(result: Result<T, RuntimeError>) -> Fault {
    result.expect_err("this must fail").fault
}
