//! A vendor's objects, by the pointers that its runtime gave for them.
//!
//! Invariant: an owned object is given back once, on the device that it is from, and what the runtime says to that is
//! nobody's concern: on a device that is lost it can only repeat so.
#![expect(
    unsafe_code,
    reason = "a pointer is not sent between threads by itself, and a vendor's functions are foreign"
)]

use std::ffi::c_uint;
use std::fmt;
use std::sync::Arc;

use crate::RuntimeError;

/// A module, stream, event or other object of a vendor's runtime. The host hands it on and never looks inside.
pub struct Handle<T>(*mut T);

// SAFETY: the pointer is never dereferenced here, and both vendors' runtimes take an object from any thread.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above; what two threads do to one object at a time, the runtime puts in order.
unsafe impl<T> Sync for Handle<T> {}

impl<T> Handle<T> {
    /// Of what a runtime gave.
    pub const fn new(object: *mut T) -> Self {
        Self(object)
    }

    /// What a runtime takes.
    pub const fn raw(self) -> *mut T {
        self.0
    }
}

// Derived, these would ask the same of `T`.
impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A device that a thread makes its own before it calls anything of the runtime.
pub trait Current {
    /// Makes it this thread's.
    fn enter(&self) -> Result<(), RuntimeError>;
}

/// An object that is given back when it is dropped.
#[derive(Debug)]
pub struct Owned<C: Current, T> {
    device: Arc<C>,
    object: Handle<T>,
    give_back: unsafe extern "C" fn(*mut T) -> c_uint,
}

impl<C: Current, T> Owned<C, T> {
    /// Takes over what a runtime made.
    ///
    /// # Safety
    /// `object` is of `device`, nobody else gives it back, and `give_back` is the function that does.
    pub unsafe fn new(
        device: &Arc<C>,
        object: *mut T,
        give_back: unsafe extern "C" fn(*mut T) -> c_uint,
    ) -> Self {
        Self { device: Arc::clone(device), object: Handle(object), give_back }
    }

    /// What a runtime takes; valid as long as the value.
    pub fn raw(&self) -> *mut T {
        self.object.0
    }

    /// The device that it is from.
    pub fn device(&self) -> &Arc<C> {
        &self.device
    }
}

impl<C: Current, T> Drop for Owned<C, T> {
    fn drop(&mut self) {
        if self.device.enter().is_ok() {
            // SAFETY: by `new`'s contract this is the function, and this is the only call.
            let _status = unsafe { (self.give_back)(self.object.0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    #[derive(Debug)]
    struct Device {
        lost: AtomicBool,
    }

    impl Current for Device {
        fn enter(&self) -> Result<(), RuntimeError> {
            let lost = self.lost.load(Ordering::Relaxed);
            if lost { Err(RuntimeError::of("enter", 719, &[])) } else { Ok(()) }
        }
    }

    /// Counts in the object itself.
    ///
    /// # Safety
    /// The count is there.
    unsafe extern "C" fn give_back(count: *mut AtomicU32) -> c_uint {
        // SAFETY: the caller vouches: tests' counts outlive what owns them.
        unsafe { &*count }.fetch_add(1, Ordering::Relaxed);
        719 // Nobody asks.
    }

    #[test]
    fn an_object_is_given_back_once_and_on_a_lost_device_not_at_all() {
        for (lost, expected) in [(false, 1), (true, 0)] {
            let device = Arc::new(Device { lost: AtomicBool::new(false) });
            let mut count = AtomicU32::new(0);
            // SAFETY: the count is this test's, and is given back by nobody else.
            let owned = unsafe { Owned::new(&device, &mut count, give_back) };
            assert_eq!(Arc::strong_count(&device), 2, "the device stays as long as what is of it");
            device.lost.store(lost, Ordering::Relaxed);
            drop(owned);
            assert_eq!((count.load(Ordering::Relaxed), Arc::strong_count(&device)), (expected, 1));
        }
        assert_eq!(RuntimeError::of("enter", 719, &[]).fault, Fault::Other);
    }
}
