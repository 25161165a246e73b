//! The device that a command computes on, or why it cannot be had.

use crate::failure::{Exit, Failure};
use plesio::{DeviceChoice, OpenedDevice};
use std::path::Path;

/// Opens it. One that was asked for by name and is not there is an answer of its own.
pub(crate) fn open(choice: DeviceChoice, kernels: Option<&Path>) -> Result<OpenedDevice, Failure> {
    plesio::device::open(choice, kernels).map_err(|cause| {
        let failure = Failure::run("device", format!("--device {choice} does not work here"), cause)
            .fix("take --device auto, which falls back to the CPU");
        Failure { exit: Exit::Missing, ..failure }
    })
}
