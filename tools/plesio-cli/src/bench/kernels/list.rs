//! The kernels that are measured, each with its shape: what it works on, and how a device is called.
//!
//! ```text
//!  slot.rs        what nodes send each other, and the commit
//!  aggregate.rs   sums, norms, rules and votes over contributions
//!  adapters.rs    adapters, their base and their optimiser
//! ```
//!
//! Bytes are the least that any version of a kernel must move, and the floor moves as many in as many streams.

mod adapters;
mod aggregate;
mod slot;

use super::memory::Buffers;
use super::plan::{Plan, Scale};
use plesio::AnyDevice;
use plesio_kernels::{KernelError, Reference};

/// One call, ready to be made again and again.
pub(super) type Call<'a> = Box<dyn FnMut() -> Result<(), KernelError> + 'a>;

/// What makes a call of a set of buffers; each kernel has one for any device.
type Prepare<D> = for<'a> fn(D, Buffers<'a>) -> Made<'a>;
type Made<'a> = Result<Call<'a>, KernelError>;

/// A kernel in one shape.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) plan: fn(Scale) -> Plan,
    /// Whether --size says how large its inputs are.
    pub(super) sized: bool,
    /// Whether it is meant to find its data in a cache.
    pub(super) hot: bool,
    /// Whether the script of numpy has it.
    pub(super) numpy: bool,
    pub(super) on_device: Prepare<AnyDevice>,
    pub(super) by_reference: Prepare<Reference>,
}

/// All of them, in the order of a report.
pub(super) static KERNELS: [&[Kernel]; 3] = [slot::KERNELS, aggregate::KERNELS, adapters::KERNELS];

/// The same as one list, in which each has a place.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.into_iter().flatten()
}

/// A table of kernels: `name flags: plan => function`.
macro_rules! table {
    ($($name:literal $($flag:ident)*: $plan:expr => $prepare:ident;)*) => {
        &[$($crate::bench::kernels::list::Kernel {
            name: $name,
            plan: $plan,
            sized: table!(@has sized $($flag)*),
            hot: table!(@has hot $($flag)*),
            numpy: table!(@has numpy $($flag)*),
            on_device: $prepare::<plesio::AnyDevice>,
            by_reference: $prepare::<plesio_kernels::Reference>,
        }),*]
    };
    (@has sized sized $($rest:ident)*) => { true };
    (@has hot hot $($rest:ident)*) => { true };
    (@has numpy numpy $($rest:ident)*) => { true };
    (@has $flag:ident $other:ident $($rest:ident)*) => { table!(@has $flag $($rest)*) };
    (@has $flag:ident) => { false };
}
use table;
