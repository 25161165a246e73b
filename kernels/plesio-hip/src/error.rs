//! The runtime's error codes by name, and what each means here.
//!
//! Written by hand; with the feature `hip-sys-link` a test compares them with those of `hip-sys`.

use plesio_launch::{Code, Fault, RuntimeError};

use crate::sys::Status;

/// A call's status as a result.
pub(crate) fn check(call: &'static str, status: Status) -> Result<(), RuntimeError> {
    if status == SUCCESS { Ok(()) } else { Err(error(call, status)) }
}

/// What a status other than success means.
pub(crate) fn error(call: &'static str, status: Status) -> RuntimeError {
    RuntimeError::of(call, i32::try_from(status).unwrap_or(i32::MAX), CODES)
}

const SUCCESS: Status = 0;
/// What is wrong with no bytes at all, which the runtime takes for success.
pub(crate) const INVALID_VALUE: Status = 1;
/// What is wrong with a device whose architecture nobody tells.
pub(crate) const INVALID_DEVICE: Status = 101;
/// What is wrong with an image that is not given to the runtime at all.
pub(crate) const INVALID_IMAGE: Status = 200;
/// A status that is no failure: what was asked about is not done.
pub(crate) const NOT_READY: Status = 600;

/// Hands the codes to a macro.
macro_rules! codes {
    ($use:ident) => {
        $use! {
            Memory: hipErrorOutOfMemory = 2;
            Image: hipErrorInvalidDeviceFunction = 98;
            Image: hipErrorInvalidImage = 200;
            Image: hipErrorNoBinaryForGpu = 209;
            Image: hipErrorInvalidKernelFile = 218;
            Image: hipErrorInvalidSource = 300;
            Image: hipErrorSharedObjectSymbolNotFound = 302;
            Image: hipErrorSharedObjectInitFailed = 303;
            Missing: hipErrorNotFound = 500;
            Lost: hipErrorDeinitialized = 4;
            Lost: hipErrorPriorLaunchFailure = 53;
            Lost: hipErrorECCNotCorrectable = 214;
            Lost: hipErrorIllegalAddress = 700;
            Lost: hipErrorLaunchTimeOut = 702;
            Lost: hipErrorContextIsDestroyed = 709;
            Lost: hipErrorAssert = 710;
            Lost: hipErrorLaunchFailure = 719;
            Lost: hipErrorUnknown = 999;
            Lost: hipErrorRuntimeMemory = 1052;
            Lost: hipErrorRuntimeOther = 1053;
            Other: hipErrorInvalidValue = 1;
            Other: hipErrorNotInitialized = 3;
            Other: hipErrorInvalidConfiguration = 9;
            Other: hipErrorInvalidDevicePointer = 17;
            Other: hipErrorInsufficientDriver = 35;
            Other: hipErrorNoDevice = 100;
            Other: hipErrorInvalidDevice = 101;
            Other: hipErrorInvalidContext = 201;
            Other: hipErrorMapFailed = 205;
            Other: hipErrorUnmapFailed = 206;
            Other: hipErrorAlreadyMapped = 208;
            Other: hipErrorNotMapped = 211;
            Other: hipErrorFileNotFound = 301;
            Other: hipErrorOperatingSystem = 304;
            Other: hipErrorInvalidHandle = 400;
            Other: hipErrorIllegalState = 401;
            Other: hipErrorNotReady = 600;
            Other: hipErrorLaunchOutOfResources = 701;
            Other: hipErrorHostMemoryAlreadyRegistered = 712;
            Other: hipErrorHostMemoryNotRegistered = 713;
            Other: hipErrorNotSupported = 801;
            Other: hipErrorStreamCaptureUnsupported = 900;
            Other: hipErrorStreamCaptureInvalidated = 901;
            Other: hipErrorStreamCaptureMerge = 902;
            Other: hipErrorStreamCaptureUnmatched = 903;
            Other: hipErrorStreamCaptureUnjoined = 904;
            Other: hipErrorStreamCaptureIsolation = 905;
            Other: hipErrorStreamCaptureImplicit = 906;
            Other: hipErrorCapturedEvent = 907;
            Other: hipErrorStreamCaptureWrongThread = 908;
        }
    };
}

macro_rules! table {
    ($($fault:ident: $name:ident = $number:literal;)*) => {
        const CODES: &[Code] =
            &[$(Code { number: $number, name: stringify!($name), fault: Fault::$fault },)*];
    };
}

codes!(table);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_no_error_and_every_other_status_is_one() {
        assert_eq!(check("hipInit", 0), Ok(()));
        let error = check("hipMalloc", 2).expect_err("out of memory");
        assert_eq!((error.name.as_str(), error.fault), ("hipErrorOutOfMemory", Fault::Memory));
        assert_eq!(error.to_string(), "hipMalloc: hipErrorOutOfMemory (2)");
        for unknown in [12_345, u32::MAX] {
            let error = check("hipInit", unknown).expect_err("not success");
            assert_eq!((error.fault, error.name.as_str()), (Fault::Other, "a newer runtime's error"));
        }
    }

    #[test]
    fn what_ends_a_device_and_what_is_wrong_with_an_image_are_told_apart() {
        let fault = |status| error("hipEventQuery", status).fault;
        for status in [700, 719, 214, 702, 999, 1052, 1053] {
            assert_eq!(fault(status), Fault::Lost, "{status}");
        }
        for status in [INVALID_IMAGE, 209, 218] {
            assert_eq!(fault(status), Fault::Image, "{status}");
        }
        assert_eq!((fault(500), fault(INVALID_VALUE)), (Fault::Missing, Fault::Other));
        assert_eq!((fault(INVALID_DEVICE), fault(NOT_READY)), (Fault::Other, Fault::Other));
    }

    #[test]
    fn no_code_stands_twice() {
        for (index, code) in CODES.iter().enumerate() {
            assert!(CODES[..index].iter().all(|other| other.number != code.number), "{code:?}");
        }
    }

    #[cfg(feature = "hip-sys-link")]
    #[test]
    fn every_code_is_that_of_hip_sys() {
        macro_rules! compare {
            ($($fault:ident: $name:ident = $number:literal;)*) => {
                $(assert_eq!(hip_sys::hiprt::hipError_t::$name as i32, $number, stringify!($name));)*
            };
        }
        codes!(compare);
    }
}
