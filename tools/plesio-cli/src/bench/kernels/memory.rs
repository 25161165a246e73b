//! The memory that a kernel is measured in: an arena, as a node's tensors lie in one, with a region for each of the
//! plan's buffers, and in each region that buffer of every set.
//!
//! ```text
//!  region 0: | input of set 0 | of set 1 | ... |      sets are taken in turn; together they are the working set
//!  region 1: | output of set 0 | of set 1 | ... |
//! ```

use super::plan::{Buffer, LINE_BYTES, Plan};
use crate::failure::Failure;
use bytemuck::{AnyBitPattern, NoUninit};
use plesio::AnyDevice;
use plesio_memory::{Arena, ArenaPlan, Filling, Lease};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

pub(super) struct Memory {
    arena: Arena,
    leases: Vec<Lease<Filling>>,
    buffers: Vec<Buffer>,
    sets: usize,
}

/// One set's buffers, handed out in the plan's order.
pub(super) struct Buffers<'a>(std::vec::IntoIter<&'a mut [u8]>);

impl<'a> Buffers<'a> {
    /// How many are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn read<T: AnyBitPattern + NoUninit>(&mut self) -> &'a [T] {
        self.write()
    }

    pub(super) fn reads<T: AnyBitPattern + NoUninit>(&mut self, count: usize) -> Vec<&'a [T]> {
        (0..count).map(|_| self.read()).collect()
    }

    pub(super) fn write<T: AnyBitPattern + NoUninit>(&mut self) -> &'a mut [T] {
        bytemuck::cast_slice_mut(self.0.next().expect("the plan has as many as its kernel takes"))
    }
}

impl Memory {
    /// So many sets, filled from the seed.
    pub(super) fn fill(device: AnyDevice, plan: &Plan, sets: usize, seed: u64) -> Result<Self, Failure> {
        let failure = |cause: &dyn std::fmt::Display| {
            Failure::run("bench", "cannot have this much memory", cause)
                .fix("give a smaller --working-set or --size")
        };
        let mut arena_plan = ArenaPlan::new("plesio-bench", 0);
        for buffer in &plan.buffers {
            arena_plan.push(stride(buffer) * sets);
        }
        arena_plan.budget_bytes = arena_plan.needed_bytes().next_multiple_of(HUGE_BYTES);
        let (arena, _) = device.arena(&arena_plan).map_err(|cause| failure(&cause))?;
        let mut leases = Vec::new();
        for (region, buffer) in (0..).zip(&plan.buffers) {
            let mut lease = arena.lease(region).map_err(|cause| failure(&cause))?;
            for (set, bytes) in lease.as_bytes_mut().chunks_exact_mut(stride(buffer)).enumerate() {
                let seed = seed ^ (u64::from(region) << 48) ^ ((set as u64) << 24);
                buffer.fill(&mut bytes[..buffer.bytes()], seed);
            }
            leases.push(lease);
        }
        Ok(Self { arena, leases, buffers: plan.buffers.clone(), sets })
    }

    /// Every set's buffers, until they are given back.
    pub(super) fn sets(&mut self) -> Vec<Buffers<'_>> {
        let mut sets: Vec<Vec<&mut [u8]>> = (0..self.sets).map(|_| Vec::new()).collect();
        for (lease, buffer) in self.leases.iter_mut().zip(&self.buffers) {
            let regions = lease.as_bytes_mut().chunks_exact_mut(stride(buffer));
            for (set, bytes) in sets.iter_mut().zip(regions) {
                set.push(&mut bytes[..buffer.bytes()]);
            }
        }
        sets.into_iter().map(|set| Buffers(set.into_iter())).collect()
    }

    /// How many sets there are.
    pub(super) fn count(&self) -> usize {
        self.sets
    }

    /// What a buffer of the first set holds.
    pub(super) fn first(&self, buffer: usize) -> &[u8] {
        &self.leases[buffer].as_bytes()[..self.buffers[buffer].bytes()]
    }

    /// Where another process finds all of it, to read.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let file = self.arena.file()?.as_raw_fd();
        Some(format!("/proc/{}/fd/{file}", std::process::id()).into())
    }

    /// Where a buffer of the first set begins there, and how far on the next set's does.
    pub(super) fn place(&self, buffer: usize) -> (usize, usize) {
        let begin = self.arena.memory().0.addr().get();
        (self.leases[buffer].as_bytes().as_ptr().addr() - begin, stride(&self.buffers[buffer]))
    }
}

/// From a buffer to the next set's.
fn stride(buffer: &Buffer) -> usize {
    buffer.bytes().next_multiple_of(LINE_BYTES)
}

/// Arenas have room for whole pages of the large kind.
const HUGE_BYTES: usize = 2 << 20;
