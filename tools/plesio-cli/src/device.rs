//! The device that a command computes on, or why it cannot be had.

use crate::failure::{Exit, Failure};
use plesio::device::ArtefactError;
use plesio::{DeviceChoice, DeviceError, OpenedDevice};
use std::env;
use std::path::Path;

/// Opens it. One that was asked for by name and is not there is an answer of its own.
pub(crate) fn open(choice: DeviceChoice, kernels: Option<&Path>) -> Result<OpenedDevice, Failure> {
    plesio::device::open(choice, kernels).map_err(|cause| {
        let here = format!("--device {choice} does not work here");
        let (what, fix) = match (&cause, kernels) {
            (DeviceError::Kernels { cause: ArtefactError::Folder(_), .. }, Some(folder)) => {
                (format!("the kernels in {} do not work here", folder.display()), without(folder))
            }
            (DeviceError::Kernels { cause, .. }, _) => (here, cause.fix("--kernels-dir DIR")),
            _ => (here, "take --device auto, which falls back to the CPU".into()),
        };
        let failure = Failure::run("device", what, cause).fix(fix);
        Failure { exit: Exit::Missing, ..failure }
    })
}

/// How to do without a folder of kernels, by who named it.
fn without(folder: &Path) -> String {
    let of_environment = env::var_os(KERNELS_VARIABLE).is_some_and(|named| Path::new(&named) == folder);
    if of_environment { format!("unset {KERNELS_VARIABLE}") } else { "leave --kernels-dir out".into() }
}

const KERNELS_VARIABLE: &str = "PLESIO_KERNELS_DIR";
