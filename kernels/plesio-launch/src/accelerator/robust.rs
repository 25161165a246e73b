//! Rules over contributions that bear some that are wrong, on a device.

use std::ffi::CStr;

use plesio_kernels::robust::check;
use plesio_kernels::{Device, KernelError, Robust};

use crate::accelerator::Accelerator;
use crate::call::aligned;
use crate::kernel::{Kernel, listed};
use crate::{Runtime, params};

/// Threads of a block.
const THREADS: usize = 128;

/// Elements of a block: a thread has four of few lanes, and one of many.
const fn elements(lanes: usize) -> usize {
    if lanes <= 8 { 4 * THREADS } else { THREADS }
}

const fn kernel(symbol: &'static str) -> Kernel {
    let Ok(name) = CStr::from_bytes_with_nul(symbol.as_bytes()) else { panic!("it ends with zero") };
    Kernel { name, threads: THREADS as u32 }
}

/// The kernels, by the lanes that they sort. Not one for each number of inputs: they would be a third of all code.
macro_rules! kernels {
    ($($lanes:literal)+) => {
        const KERNELS: &[(usize, Kernel)] = &[$(($lanes, kernel(concat!("plesio_robust_", $lanes, "\0")))),+];
    };
}

kernels! { 2 3 4 5 6 7 8 10 12 16 20 24 28 32 }

/// How the elements in the middle become one: see `robust.h`.
struct Middle {
    start: f32,
    share: f32,
    factor: f32,
    trim: usize,
}

impl Middle {
    fn new(rule: Robust, count: usize) -> Option<Self> {
        match rule {
            Robust::Median => {
                let share = if count.is_multiple_of(2) { 0.5 } else { 1.0 };
                Some(Self { start: -0.0, share, factor: 1.0, trim: (count - 1) / 2 })
            }
            Robust::TrimmedMean { trim } => {
                let factor = 1.0 / (count - 2 * trim) as f32;
                Some(Self { start: 0.0, share: 1.0, factor, trim })
            }
            _ => None,
        }
    }
}

pub(super) fn robust<R: Runtime>(
    on: Accelerator<R>,
    rule: Robust,
    inputs: &[&[f32]],
    out: &mut [f32],
) -> Result<(), KernelError> {
    check(rule, inputs, out.len())?;
    let count = inputs.len();
    let kernel = KERNELS.iter().find(|(lanes, _)| *lanes >= count);
    let (Some(middle), Some(&(lanes, kernel))) = (Middle::new(rule, count), kernel) else {
        return on.cpu().robust(rule, inputs, out);
    };
    let results = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = results.len();
        let places = inputs.iter().map(|input| call.read(input)).collect::<Result<Vec<_>, _>>()?;
        let out = call.output(results)?;
        let params = params::Robust {
            inputs: listed(&places),
            out,
            len: len as u64,
            start: middle.start,
            share: middle.share,
            factor: middle.factor,
            trim: middle.trim as u32,
            count: count as u32,
            aligned: aligned(&[&places[..], &[out]].concat()),
        };
        call.launch(kernel, len.div_ceil(elements(lanes)) as u64, &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().robust(rule, inputs, out), Ok)
}
