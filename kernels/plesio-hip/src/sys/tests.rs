//! The hand-written signatures and numbers against those of `hip-sys`, which bindgen made from AMD's headers.
//!
//! A type of theirs stands for one of ours where both are the same to the machine: a status and a flag are numbers,
//! an object is an address. With that said once below, a function that differs in one argument does not compile.

use super::*;
use hip_sys::hiprt;
use std::marker::PhantomData;

/// A type of `hip-sys`, and what it is here.
trait StandsFor {
    type Ours;
}

macro_rules! stands_for {
    ($($theirs:ty => $ours:ty;)*) => {
        $(
            impl StandsFor for $theirs {
                type Ours = $ours;
            }
            const _: () = assert!(size_of::<$theirs>() == size_of::<$ours>());
            const _: () = assert!(align_of::<$theirs>() == align_of::<$ours>());
        )*
    };
}

stands_for! {
    c_int => c_int;
    c_uint => c_uint;
    usize => usize;
    *mut c_char => *mut c_char;
    *const c_char => *const c_char;
    *mut c_int => *mut c_int;
    *mut f32 => *mut f32;
    *mut usize => *mut usize;
    *mut c_void => *mut c_void;
    *const c_void => *const c_void;
    *mut *mut c_void => *mut *mut c_void;
    hiprt::hipError_t => Status;
    hiprt::hipDeviceAttribute_t => Attribute;
    hiprt::hipMemcpyKind => Direction;
    hiprt::hipStreamCaptureMode => c_uint;
    hiprt::hipModule_t => *mut ModuleObject;
    *mut hiprt::hipModule_t => *mut *mut ModuleObject;
    hiprt::hipFunction_t => *mut FunctionObject;
    *mut hiprt::hipFunction_t => *mut *mut FunctionObject;
    hiprt::hipStream_t => *mut StreamObject;
    *mut hiprt::hipStream_t => *mut *mut StreamObject;
    hiprt::hipEvent_t => *mut EventObject;
    *mut hiprt::hipEvent_t => *mut *mut EventObject;
    hiprt::hipGraph_t => *mut GraphObject;
    *mut hiprt::hipGraph_t => *mut *mut GraphObject;
    hiprt::hipGraphExec_t => *mut ExecutableObject;
    *mut hiprt::hipGraphExec_t => *mut *mut ExecutableObject;
    *mut hiprt::hipGraphNode_t => *mut *mut c_void;
}

/// A function of theirs, and its type here.
trait Signature {
    type Ours;
    fn ours(self) -> PhantomData<Self::Ours>;
}

macro_rules! signatures {
    ($(($($argument:ident)*))*) => {
        $(
            impl<$($argument: StandsFor,)* R: StandsFor> Signature
                for unsafe extern "C" fn($($argument),*) -> R
            {
                type Ours = unsafe extern "C" fn($($argument::Ours),*) -> R::Ours;
                fn ours(self) -> PhantomData<Self::Ours> {
                    PhantomData
                }
            }
        )*
    };
}

signatures! {
    (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F G H I J K)
}

/// What an argument's type is to be inferred from.
macro_rules! any {
    ($argument:ident) => {
        _
    };
}

macro_rules! compare {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        $(
            let theirs = hiprt::$name as unsafe extern "C" fn($(any!($argument)),*) -> _;
            let _: PhantomData<unsafe extern "C" fn($($type),*) -> Status> = theirs.ours();
        )*
    };
}

#[test]
fn every_signature_is_that_of_hip_sys() {
    functions!(compare);
}

#[test]
fn every_number_is_that_of_hip_sys() {
    use hiprt::{hipDeviceAttribute_t as Theirs, hipMemcpyKind, hipStreamCaptureMode};
    assert_eq!(Attribute::Integrated as u32, Theirs::hipDeviceAttributeIntegrated as u32);
    assert_eq!(Attribute::MultiprocessorCount as u32, Theirs::hipDeviceAttributeMultiprocessorCount as u32);
    assert_eq!(Attribute::WarpSize as u32, Theirs::hipDeviceAttributeWarpSize as u32);
    assert_eq!(Direction::HostToDevice as u32, hipMemcpyKind::hipMemcpyHostToDevice as u32);
    assert_eq!(Direction::DeviceToHost as u32, hipMemcpyKind::hipMemcpyDeviceToHost as u32);
    assert_eq!(CAPTURE_RELAXED, hipStreamCaptureMode::hipStreamCaptureModeRelaxed as u32);
    assert_eq!(STREAM_NON_BLOCKING, hiprt::hipStreamNonBlocking);
    assert_eq!(EVENT_DEFAULT, hiprt::hipEventDefault);
    assert_eq!(
        (HOST_MALLOC_PORTABLE, HOST_MALLOC_MAPPED),
        (hiprt::hipHostMallocPortable, hiprt::hipHostMallocMapped)
    );
    assert_eq!(
        (HOST_REGISTER_PORTABLE, HOST_REGISTER_MAPPED),
        (hiprt::hipHostRegisterPortable, hiprt::hipHostRegisterMapped)
    );
}
