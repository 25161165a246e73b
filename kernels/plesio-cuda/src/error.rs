//! The driver's error codes by name, and what each means here.
//!
//! The codes of CUDA 11.4 are `cudarc`'s; those that came later stand as numbers.

use cudarc::driver::sys::CUresult;
use plesio_launch::{Code, Fault, RuntimeError};

use crate::sys::Status;

/// A call's status as a result.
pub(crate) fn check(call: &'static str, status: Status) -> Result<(), RuntimeError> {
    if status == CUresult::CUDA_SUCCESS as Status { Ok(()) } else { Err(error(call, status)) }
}

/// What a status other than success means.
pub(crate) fn error(call: &'static str, status: Status) -> RuntimeError {
    RuntimeError::of(call, i32::try_from(status).unwrap_or(i32::MAX), CODES)
}

/// A status that is no failure: what was asked about is not done.
pub(crate) const NOT_READY: Status = CUresult::CUDA_ERROR_NOT_READY as Status;
/// What is wrong with an image that is not given to the driver at all.
pub(crate) const INVALID_IMAGE: Status = CUresult::CUDA_ERROR_INVALID_IMAGE as Status;

macro_rules! codes {
    ([$($fault:ident: $($name:ident)*;)*] [$($kind:ident: $newer:ident = $number:literal;)*]) => {
        &[
            $($(Code { number: CUresult::$name as i32, name: stringify!($name), fault: Fault::$fault },)*)*
            $(Code { number: $number, name: stringify!($newer), fault: Fault::$kind },)*
        ]
    };
}

#[rustfmt::skip]
const CODES: &[Code] = codes! { [
    Memory: CUDA_ERROR_OUT_OF_MEMORY;
    Image: CUDA_ERROR_INVALID_IMAGE CUDA_ERROR_NO_BINARY_FOR_GPU CUDA_ERROR_INVALID_PTX
        CUDA_ERROR_JIT_COMPILER_NOT_FOUND CUDA_ERROR_UNSUPPORTED_PTX_VERSION CUDA_ERROR_JIT_COMPILATION_DISABLED
        CUDA_ERROR_INVALID_SOURCE CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND CUDA_ERROR_SHARED_OBJECT_INIT_FAILED;
    Missing: CUDA_ERROR_NOT_FOUND;
    // After these the driver answers every call of the process alike, or the device is not there any more.
    Lost: CUDA_ERROR_DEINITIALIZED CUDA_ERROR_ECC_UNCORRECTABLE CUDA_ERROR_NVLINK_UNCORRECTABLE
        CUDA_ERROR_ILLEGAL_ADDRESS CUDA_ERROR_LAUNCH_TIMEOUT CUDA_ERROR_CONTEXT_IS_DESTROYED CUDA_ERROR_ASSERT
        CUDA_ERROR_HARDWARE_STACK_ERROR CUDA_ERROR_ILLEGAL_INSTRUCTION CUDA_ERROR_MISALIGNED_ADDRESS
        CUDA_ERROR_INVALID_ADDRESS_SPACE CUDA_ERROR_INVALID_PC CUDA_ERROR_LAUNCH_FAILED
        CUDA_ERROR_MPS_CONNECTION_FAILED CUDA_ERROR_MPS_RPC_FAILURE CUDA_ERROR_EXTERNAL_DEVICE CUDA_ERROR_UNKNOWN;
    Other: CUDA_ERROR_INVALID_VALUE CUDA_ERROR_NOT_INITIALIZED CUDA_ERROR_STUB_LIBRARY CUDA_ERROR_NO_DEVICE
        CUDA_ERROR_INVALID_DEVICE CUDA_ERROR_DEVICE_NOT_LICENSED CUDA_ERROR_INVALID_CONTEXT CUDA_ERROR_MAP_FAILED
        CUDA_ERROR_UNMAP_FAILED CUDA_ERROR_ALREADY_MAPPED CUDA_ERROR_ALREADY_ACQUIRED CUDA_ERROR_NOT_MAPPED
        CUDA_ERROR_UNSUPPORTED_LIMIT CUDA_ERROR_CONTEXT_ALREADY_IN_USE CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY
        CUDA_ERROR_FILE_NOT_FOUND CUDA_ERROR_OPERATING_SYSTEM CUDA_ERROR_INVALID_HANDLE CUDA_ERROR_ILLEGAL_STATE
        CUDA_ERROR_NOT_READY CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE
        CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED
        CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE CUDA_ERROR_NOT_PERMITTED CUDA_ERROR_NOT_SUPPORTED
        CUDA_ERROR_SYSTEM_NOT_READY CUDA_ERROR_SYSTEM_DRIVER_MISMATCH CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
        CUDA_ERROR_MPS_SERVER_NOT_READY CUDA_ERROR_MPS_MAX_CLIENTS_REACHED CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED CUDA_ERROR_STREAM_CAPTURE_INVALIDATED CUDA_ERROR_STREAM_CAPTURE_MERGE
        CUDA_ERROR_STREAM_CAPTURE_UNMATCHED CUDA_ERROR_STREAM_CAPTURE_UNJOINED CUDA_ERROR_STREAM_CAPTURE_ISOLATION
        CUDA_ERROR_STREAM_CAPTURE_IMPLICIT CUDA_ERROR_CAPTURED_EVENT CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
        CUDA_ERROR_TIMEOUT;
] [
    Other: CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER = 36;
    Lost: CUDA_ERROR_DEVICE_UNAVAILABLE = 46;
    Lost: CUDA_ERROR_CONTAINED = 226;
    Lost: CUDA_ERROR_TENSOR_MEMORY_LEAK = 721;
    Lost: CUDA_ERROR_MPS_CLIENT_TERMINATED = 810;
] };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_no_error_and_every_other_status_is_one() {
        assert_eq!(check("cuInit", 0), Ok(()));
        let error = check("cuMemAlloc", 2).expect_err("out of memory");
        assert_eq!((error.name.as_str(), error.fault), ("CUDA_ERROR_OUT_OF_MEMORY", Fault::Memory));
        assert_eq!(error.to_string(), "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2)");
        for unknown in [12_345, u32::MAX] {
            let error = check("cuInit", unknown).expect_err("not success");
            assert_eq!((error.fault, error.name.as_str()), (Fault::Other, "a newer runtime's error"));
        }
    }

    #[test]
    fn what_ends_a_device_and_what_is_wrong_with_an_image_are_told_apart() {
        let fault = |status| error("cuEventQuery", status).fault;
        for status in [700, 714, 715, 716, 717, 718, 719, 214, 702] {
            assert_eq!(fault(status), Fault::Lost, "{status}");
        }
        for status in [200, 209, 218, 222] {
            assert_eq!(fault(status), Fault::Image, "{status}");
        }
        assert_eq!((fault(500), fault(1)), (Fault::Missing, Fault::Other));
    }

    #[test]
    fn no_code_stands_twice() {
        for (index, code) in CODES.iter().enumerate() {
            assert!(CODES[..index].iter().all(|other| other.number != code.number), "{code:?}");
        }
    }
}
