//! What a device is, as its runtime tells it.

use std::fmt;

/// Whose silicon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Vendor {
    /// Runs cubins and PTX.
    Nvidia,
    /// Runs code objects.
    Amd,
}

/// One device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chip {
    /// Whose silicon.
    pub vendor: Vendor,
    /// The runtime's number of it.
    pub ordinal: u32,
    /// What its maker calls it.
    pub name: String,
    /// What artefacts are named after: `sm_90`, `gfx942`.
    pub architecture: String,
    /// Threads that run in step: 32 or 64.
    pub warp_threads: u32,
    /// Multiprocessors or compute units.
    pub units: u32,
    /// Memory that kernels may use, bytes.
    pub memory_bytes: u64,
    /// Shares the host's memory: Jetsons and APUs.
    pub integrated: bool,
    /// Version of the driver as it tells it: CUDA 13.0 is 13000, HIP 6.2 is 60200000.
    pub driver: u32,
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {} units)", self.name, self.architecture, self.units)
    }
}

/// What looking for devices found. Looking never fails: what keeps devices from being used is told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Discovery {
    /// Devices that can be opened.
    pub chips: Vec<Chip>,
    /// Why there are none, or not all: a missing library, an old driver, a device that refuses.
    pub remarks: Vec<String>,
    /// Nothing of the vendor's is here: neither its library nor, as far as the kernel tells, a device.
    pub absent: bool,
}
