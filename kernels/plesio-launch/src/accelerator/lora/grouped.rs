//! Rows with an adapter each, in one launch.

use plesio_kernels::lora::grouped::check_grouped;
use plesio_kernels::{Adapter, Device, KernelError, NO_ADAPTER};

use super::{pieces, short};
use crate::Runtime;
use crate::accelerator::Accelerator;
use crate::kernel::Kernel;
use crate::params::{Grouped, GroupedRow};

const GROUPED: Kernel = Kernel::new(c"plesio_lora_grouped");
/// Columns of a block.
const SLICE: usize = 1024;

pub(in crate::accelerator) fn lora_grouped<R: Runtime>(
    on: Accelerator<R>,
    adapters: &[Adapter<'_>],
    which: &[u32],
    x: &[u16],
    y: &mut [u16],
) -> Result<(), KernelError> {
    let Some((d_in, d_out)) = check_grouped(adapters, which, x, y)? else { return Ok(()) };
    if which.iter().all(|&index| index == NO_ADAPTER) {
        return Ok(());
    }
    let out = &mut *y;
    let done = on.engine().attempt(move |call| {
        let (x, y) = (call.read(x)?, call.update(out)?);
        let (mut places, mut factors, mut rows) = (vec![x, y], vec![None; adapters.len()], Vec::new());
        for (row, &index) in which.iter().enumerate().filter(|(_, index)| **index != NO_ADAPTER) {
            let adapter = adapters[index as usize];
            let (a, b) = match factors[index as usize] {
                Some(known) => known,
                None => (call.read(adapter.a())?, call.read(adapter.b())?),
            };
            factors[index as usize] = Some((a, b));
            places.extend([a, b]);
            rows.push(GroupedRow {
                a,
                b,
                row: row as u64,
                rank: short(adapter.rank())?,
                scale: adapter.scale(),
            });
        }
        let slices = d_out.div_ceil(SLICE);
        let params = Grouped {
            rows: call.read(&rows)?,
            x,
            y,
            d_in: d_in as u64,
            d_out: d_out as u64,
            slices: short(slices)?,
            aligned: pieces::<u16>(&places, &[d_in as u64, d_out as u64]),
        };
        call.launch(GROUPED, rows.len() as u64 * slices as u64, &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().lora_grouped(adapters, which, x, y), Ok)
}
