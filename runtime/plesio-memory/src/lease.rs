//! Who may touch a region, as a type: a [`Lease`] that is `Filling` may be written, one that is `InFlight` may not,
//! and a [`Shared`] only reads.
//!
//! Invariant: a value here owns its part of the region's access word; dropping it gives that part back.

use core::marker::PhantomData;

use bytemuck::Pod;
use plesio_wire::Span;

use crate::AccessError;
use crate::arena::{Arena, Hold};

/// We are the only one who touches the region.
#[derive(Debug)]
pub struct Filling;

/// A device or the network is reading the region.
#[derive(Debug)]
pub struct InFlight;

/// The right to a whole region.
#[derive(Debug)]
pub struct Lease<State> {
    hold: Hold,
    state: PhantomData<State>,
}

impl<State> Lease<State> {
    /// Where the region's bytes lie, as the socket wants it.
    #[must_use]
    pub fn span(&self) -> Span {
        self.hold.span()
    }

    fn with(hold: Hold) -> Self {
        Self { hold, state: PhantomData }
    }
}

impl Lease<Filling> {
    pub(crate) fn take(arena: &Arena, region: u16) -> Result<Self, AccessError> {
        Hold::exclusive(arena, region).map(Self::with)
    }

    /// The region's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.hold.bytes()
    }

    /// The region's bytes, to be written.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.hold.bytes_mut()
    }

    /// The region as i32 elements; a remainder that is no whole element is left out.
    #[must_use]
    pub fn as_i32(&self) -> &[i32] {
        elements(self.as_bytes())
    }

    /// The region as i32 elements, to be written.
    pub fn as_i32_mut(&mut self) -> &mut [i32] {
        elements_mut(self.as_bytes_mut())
    }

    /// The region as i64 elements.
    #[must_use]
    pub fn as_i64(&self) -> &[i64] {
        elements(self.as_bytes())
    }

    /// The region as i64 elements, to be written.
    pub fn as_i64_mut(&mut self) -> &mut [i64] {
        elements_mut(self.as_bytes_mut())
    }

    /// The region as f32 elements.
    #[must_use]
    pub fn as_f32(&self) -> &[f32] {
        elements(self.as_bytes())
    }

    /// The region as f32 elements, to be written.
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        elements_mut(self.as_bytes_mut())
    }

    /// Hands the region to a device or the network: from here on it cannot be written.
    ///
    /// ```compile_fail
    /// let mut plan = plesio_memory::ArenaPlan::new("doc", 4096);
    /// plan.push(64);
    /// let arena = plesio_memory::Arena::heap(&plan).unwrap();
    /// let in_flight = arena.lease(0).unwrap().launch();
    /// in_flight.as_bytes_mut();
    /// ```
    #[must_use]
    pub fn launch(self) -> Lease<InFlight> {
        Lease::with(self.hold.freeze())
    }

    #[cfg_attr(all(loom, test), expect(dead_code, reason = "models lay nothing over arena memory"))]
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }
}

impl Lease<InFlight> {
    /// The completion has arrived: the region is ours alone again.
    ///
    /// # Errors
    /// Gives the lease back while somebody still reads the region.
    pub fn complete(self) -> Result<Lease<Filling>, Self> {
        self.hold.thaw().map(Lease::with).map_err(Self::with)
    }
}

/// The right to read some bytes; nobody writes to their region while it lives.
#[derive(Debug)]
pub struct Shared {
    hold: Hold,
    span: Span,
}

impl Shared {
    pub(crate) fn take(arena: &Arena, span: Span) -> Result<Self, AccessError> {
        arena.check(span)?;
        Ok(Self { hold: Hold::shared(arena, span.region)?, span })
    }

    /// The span asked for.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let start = self.span.offset_bytes as usize;
        &self.hold.bytes()[start..start + self.span.len_bytes as usize]
    }

    /// The bytes as i32 elements.
    ///
    /// # Panics
    /// When the span's offset is not a multiple of the element's size.
    #[must_use]
    pub fn as_i32(&self) -> &[i32] {
        elements(self.as_bytes())
    }

    /// The bytes as i64 elements; panics as [`Self::as_i32`].
    #[must_use]
    pub fn as_i64(&self) -> &[i64] {
        elements(self.as_bytes())
    }

    /// The bytes as f32 elements; panics as [`Self::as_i32`].
    #[must_use]
    pub fn as_f32(&self) -> &[f32] {
        elements(self.as_bytes())
    }
}

fn elements<T: Pod>(bytes: &[u8]) -> &[T] {
    let whole_bytes = bytes.len() - bytes.len() % size_of::<T>();
    bytemuck::cast_slice(&bytes[..whole_bytes])
}

fn elements_mut<T: Pod>(bytes: &mut [u8]) -> &mut [T] {
    let whole_bytes = bytes.len() - bytes.len() % size_of::<T>();
    bytemuck::cast_slice_mut(&mut bytes[..whole_bytes])
}
