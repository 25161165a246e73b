//! Selection of the largest elements on a device: a sequence of kernels that the host does not wait for in between.

use plesio_kernels::sparse::check;
use plesio_kernels::{Device, KernelError};

use crate::Runtime;
use crate::accelerator::Accelerator;
use crate::call::aligned;
use crate::kernel::{Kernel, THREADS, word_tiles};
use crate::params::{TopK, TopWork};

const SAMPLE: Kernel = Kernel::new(c"plesio_top_sample");
const MARK: Kernel = Kernel::new(c"plesio_top_mark");
const NARROW: Kernel = Kernel::new(c"plesio_top_narrow");
const COUNT: Kernel = Kernel::new(c"plesio_top_count");
const EMIT: Kernel = Kernel::new(c"plesio_top_emit");

/// How many of the 31 bits of the last wanted magnitude are known when each level begins.
const KNOWN: [u32; 3] = [0, 11, 22];

pub(super) fn top_k<R: Runtime>(
    on: Accelerator<R>,
    x: &[f32],
    count: usize,
    indices: &mut [u32],
    values: &mut [f32],
) -> Result<(), KernelError> {
    check(x, count, indices, values)?;
    if count == 0 {
        return Ok(());
    }
    let (indices_out, values_out) = (&mut *indices, &mut *values);
    let done = on.engine().attempt(move |call| {
        let blocks = word_tiles(x.len());
        let words_bytes = blocks as usize * THREADS as usize * size_of::<u32>();
        let place = call.read(x)?;
        let params = TopK {
            x: place,
            indices: call.output(indices_out)?,
            values: call.output(values_out)?,
            work: call.scratch(size_of::<TopWork>())?,
            marks: call.scratch(words_bytes)?,
            ties: call.scratch(words_bytes)?,
            counts: call.scratch(blocks as usize * size_of::<u32>())?,
            before: call.scratch(blocks as usize * 2 * size_of::<u32>())?,
            len: x.len() as u64,
            count: count as u32,
            known: 0,
            aligned: aligned(&[place]),
            pad: 0,
        };
        call.launch(SAMPLE, 1, &params)?;
        call.launch(MARK, blocks, &params)?;
        for known in KNOWN {
            call.launch(NARROW, blocks, &TopK { known, ..params })?;
        }
        call.launch(COUNT, blocks, &params)?;
        call.launch(EMIT, blocks, &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().top_k(x, count, indices, values), Ok)
}
