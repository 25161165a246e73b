//! The top of the lock ladder: the arena registered with the ring, so that the kernel has its pages in its hands for as
//! long as the ring lives. A lock keeps pages in memory; this also keeps them where they are.
//!
//! Today's calls name the arena by address, since the kernel has no receiving or gathering call for registered
//! buffers; what is gained is that no page of a transfer is ever missing or moved.
#![expect(unsafe_code, reason = "the kernel is told of memory by address")]

use core::ffi::c_void;

use io_uring::IoUring;
use nix::libc;
use plesio_memory::Arena;

/// Longest piece that a kernel takes at once.
const PIECE_BYTES: usize = 1 << 30;
/// Most pieces.
const PIECES_MAX: usize = 1_024;

/// Registers all of an arena; what came of it, in a sentence either way.
pub(super) fn register(ring: &IoUring, arena: &Arena) -> String {
    let (base, len_bytes) = arena.memory();
    let pieces: Vec<libc::iovec> = (0..len_bytes)
        .step_by(PIECE_BYTES)
        .map(|start| libc::iovec {
            iov_base: base.as_ptr().wrapping_add(start).cast::<c_void>(),
            iov_len: PIECE_BYTES.min(len_bytes - start),
        })
        .collect();
    if pieces.len() > PIECES_MAX {
        return format!("arena: {len_bytes} bytes are more than io_uring registers; locked at best");
    }
    // SAFETY: the pieces lie in the arena. The kernel takes hold of the pages themselves, and no request of this ring
    // names a registered buffer, so nothing is written through them.
    match unsafe { ring.submitter().register_buffers(&pieces) } {
        Ok(()) => format!("arena: {len_bytes} bytes registered with io_uring"),
        Err(cause) => format!(
            "arena: registering {len_bytes} bytes with io_uring failed: {cause}; raise the limit with `ulimit -l {}`",
            len_bytes.div_ceil(1024)
        ),
    }
}
