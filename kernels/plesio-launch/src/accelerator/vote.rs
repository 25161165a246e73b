//! Votes of signs on a device.

use plesio_kernels::vote::{check_pack, check_vote};
use plesio_kernels::{Device, KernelError};

use crate::Runtime;
use crate::accelerator::Accelerator;
use crate::call::aligned;
use crate::kernel::{Kernel, listed, tiles, word_tiles};
use crate::params::{SignPack, SignVote};

const SIGN_PACK: Kernel = Kernel::new(c"plesio_sign_pack");
const SIGN_VOTE: Kernel = Kernel::new(c"plesio_sign_vote");

pub(super) fn sign_pack<R: Runtime>(
    on: Accelerator<R>,
    x: &[f32],
    words: &mut [u32],
) -> Result<(), KernelError> {
    check_pack(x, words)?;
    let out = &mut *words;
    let done = on.engine().attempt(move |call| {
        let (place, words) = (call.read(x)?, call.output(out)?);
        let params = SignPack { x: place, words, len: x.len() as u64, aligned: aligned(&[place]), pad: 0 };
        call.launch(SIGN_PACK, word_tiles(x.len()), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().sign_pack(x, words), Ok)
}

pub(super) fn sign_vote<R: Runtime>(
    on: Accelerator<R>,
    votes: &[&[u32]],
    out: &mut [u32],
) -> Result<(), KernelError> {
    check_vote(votes, out.len())?;
    let majority = &mut *out;
    let done = on.engine().attempt(move |call| {
        let len = majority.len();
        let places = votes.iter().map(|vote| call.read(vote)).collect::<Result<Vec<_>, _>>()?;
        let out = call.output(majority)?;
        let params = SignVote {
            votes: listed(&places),
            out,
            len: len as u64,
            count: places.len() as u32,
            aligned: aligned(&[&places[..], &[out]].concat()),
        };
        call.launch(SIGN_VOTE, tiles(len), &params)?;
        call.wait()?;
        call.deliver();
        Ok(())
    });
    done.map_or_else(|| on.cpu().sign_vote(votes, out), Ok)
}
