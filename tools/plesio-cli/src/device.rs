//! The device that a command computes on, or why it cannot be had.

use crate::failure::{Exit, Failure};
use plesio::{DeviceChoice, DeviceError, OpenedDevice};
use std::path::Path;

/// Opens it. One that was asked for by name and is not there is an answer of its own.
pub(crate) fn open(choice: DeviceChoice, kernels: Option<&Path>) -> Result<OpenedDevice, Failure> {
    plesio::device::open(choice, kernels).map_err(|cause| {
        let fix = match &cause {
            DeviceError::Kernels { cause, .. } => cause.fix("--kernels-dir DIR"),
            _ => "take --device auto, which falls back to the CPU".into(),
        };
        let failure = Failure::run("device", format!("--device {choice} does not work here"), cause);
        Failure { exit: Exit::Missing, ..failure.fix(fix) }
    })
}
