//! Layers with int8 weights on a device.

use plesio_kernels::product::check_product;
use plesio_kernels::{Adapter, Device, KernelError, Q8};

use super::lora::{pieces, short};
use crate::accelerator::Accelerator;
use crate::kernel::Kernel;
use crate::params::ProductQ8;
use crate::{DeviceAddress, Runtime};

const PRODUCT_Q8: Kernel = Kernel::new(c"plesio_product_q8");
/// Rows of the weights that a block has.
const ROWS: usize = 32;

pub(super) fn product_q8<R: Runtime>(
    on: Accelerator<R>,
    weights: Q8<'_>,
    x: &[u16],
    adapter: Option<Adapter<'_>>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    check_product(weights, x, adapter, y)?;
    let out = &mut *y;
    let done = on.engine().attempt(move |call| {
        let (d_in, d_out) = (x.len(), out.len());
        let (codes, scales, x) = (call.read(weights.codes())?, call.read(weights.scales())?, call.read(x)?);
        let (a, b) = match adapter {
            Some(adapter) => (call.read(adapter.a())?, call.read(adapter.b())?),
            None => (DeviceAddress::default(), DeviceAddress::default()),
        };
        let params = ProductQ8 {
            codes,
            scales,
            x,
            a,
            b,
            y: call.output(out)?,
            d_in: d_in as u64,
            d_out: d_out as u64,
            rank: short(adapter.map_or(0, |adapter| adapter.rank()))?,
            scale: adapter.map_or(0.0, |adapter| adapter.scale()),
            aligned: pieces::<u16>(&[codes, x, a], &[d_in as u64]),
            pad: 0,
        };
        call.launch(PRODUCT_Q8, d_out.div_ceil(ROWS) as u64, &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().product_q8(weights, x, adapter, y), Ok)
}
