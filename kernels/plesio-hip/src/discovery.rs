//! Which AMD devices there are. Looking never fails: what cannot be used is told.
//!
//! Nothing is opened on a device; it is asked what it is, and that is all.
#![expect(unsafe_code, reason = "the runtime's functions are foreign")]

use std::ffi::{CStr, c_char, c_int};

use plesio_launch::{Absence, Chip, Discovery, RuntimeError, Vendor, system};

use crate::board::{self, Node};
use crate::error::{INVALID_DEVICE, check, error};
use crate::library::{Driver, driver};
use crate::sys::{Attribute, Status};

/// More devices of one machine are not looked at.
const DEVICES_MAX: c_int = 64;
const NAME_BYTES: usize = 256;
/// AMD's number.
const PCI_VENDOR: &str = "0x1002";
/// What the runtime itself is told by: it takes every chip for another one.
const OVERRIDE: &str = "HSA_OVERRIDE_GFX_VERSION";

/// Finds AMD's devices, and says why there are none or not all.
pub fn discover() -> Discovery {
    let mut found = Discovery::default();
    let driver = match driver() {
        Ok(driver) => driver,
        Err(absence) => {
            found.remarks.push(board::remark(&system::read, &absence.to_string()));
            found.absent = matches!(absence, Absence::Missing(_))
                && board::nodes(&system::read).is_empty()
                && !system::is_on_pci(PCI_VENDOR);
            return found;
        }
    };
    match count(driver) {
        Ok(0) => found.remarks.push(board::remark(&system::read, "the runtime has no device")),
        Ok(count) => {
            for ordinal in 0..count {
                match chip(driver, ordinal) {
                    Ok(chip) => found.chips.push(chip),
                    Err(error) => found.remarks.push(format!("HIP device {ordinal}: {error}")),
                }
            }
        }
        Err(error) => found.remarks.push(board::remark(&system::read, &error.to_string())),
    }
    found
}

fn count(driver: &Driver) -> Result<c_int, RuntimeError> {
    let mut count = 0;
    // SAFETY: writes one number.
    check("hipGetDeviceCount", unsafe { (driver.table.hipGetDeviceCount)(&mut count) })?;
    Ok(count.clamp(0, DEVICES_MAX))
}

/// What a device is.
pub(crate) fn chip(driver: &Driver, ordinal: c_int) -> Result<Chip, RuntimeError> {
    let ask = |attribute| attribute_of(driver, ordinal, attribute);
    let (nodes, place) = (board::nodes(&system::read), place(driver, ordinal)?);
    let node = board::node_at(&nodes, &place);
    Ok(Chip {
        vendor: Vendor::Amd,
        ordinal: ordinal as u32,
        name: name(driver, ordinal)?,
        architecture: architecture(node).ok_or_else(|| unknown(&place))?,
        warp_threads: ask(Attribute::WarpSize)?,
        units: ask(Attribute::MultiprocessorCount)?,
        memory_bytes: memory_bytes(driver, ordinal)?,
        // Old runtimes say no to every APU.
        integrated: ask(Attribute::Integrated)? != 0 || node.is_some_and(|node| node.shared),
        driver: driver.version,
    })
}

fn architecture(node: Option<&Node>) -> Option<String> {
    let overridden = std::env::var(OVERRIDE).ok().and_then(|version| board::overridden(&version));
    overridden.or_else(|| node.map(|node| node.architecture.clone()))
}

fn unknown(place: &str) -> RuntimeError {
    RuntimeError {
        log: format!("the kernel lists no chip at {place}, and {OVERRIDE} names no architecture"),
        ..error("hipDeviceGetPCIBusId", INVALID_DEVICE)
    }
}

fn attribute_of(driver: &Driver, ordinal: c_int, attribute: Attribute) -> Result<u32, RuntimeError> {
    let mut value: c_int = 0;
    // SAFETY: writes one number.
    check("hipDeviceGetAttribute", unsafe {
        (driver.table.hipDeviceGetAttribute)(&mut value, attribute, ordinal)
    })?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn name(driver: &Driver, ordinal: c_int) -> Result<String, RuntimeError> {
    let name = text("hipDeviceGetName", driver.table.hipDeviceGetName, ordinal)?;
    Ok(if name.is_empty() { "a device without a name".into() } else { name })
}

/// Where a device is on the bus.
fn place(driver: &Driver, ordinal: c_int) -> Result<String, RuntimeError> {
    text("hipDeviceGetPCIBusId", driver.table.hipDeviceGetPCIBusId, ordinal)
}

fn text(
    call: &'static str,
    ask: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Status,
    ordinal: c_int,
) -> Result<String, RuntimeError> {
    let mut bytes = [0u8; NAME_BYTES];
    // SAFETY: both functions that are given here write at most so many bytes.
    check(call, unsafe { ask(bytes.as_mut_ptr().cast::<c_char>(), NAME_BYTES as c_int, ordinal) })?;
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
    Ok(text.map_or_else(|_| String::new(), |text| text.trim().to_string()))
}

fn memory_bytes(driver: &Driver, ordinal: c_int) -> Result<u64, RuntimeError> {
    let mut bytes = 0;
    // SAFETY: writes one number.
    check("hipDeviceTotalMem", unsafe { (driver.table.hipDeviceTotalMem)(&mut bytes, ordinal) })?;
    Ok(bytes as u64)
}
