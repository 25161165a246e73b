//! Which NVIDIA devices there are. Looking never fails: what cannot be used is told.
//!
//! Nothing is opened on a device; it is asked what it is, and that is all.
#![expect(unsafe_code, reason = "the driver's functions are foreign")]

use std::ffi::{CStr, c_char, c_int};

use plesio_launch::{Absence, Chip, Discovery, RuntimeError, Vendor, system};

use crate::board;
use crate::error::check;
use crate::library::{Driver, driver};
use crate::sys::{CUdevice, CUdevice_attribute, CUdevice_attribute as Attribute};

/// More devices of one machine are not looked at.
const DEVICES_MAX: c_int = 64;
const NAME_BYTES: usize = 256;
/// NVIDIA's number.
const PCI_VENDOR: &str = "0x10de";

/// Finds NVIDIA's devices, and says why there are none or not all.
pub fn discover() -> Discovery {
    let mut found = Discovery::default();
    let driver = match driver() {
        Ok(driver) => driver,
        Err(absence) => {
            found.remarks.push(board::remark(&system::read, absence));
            found.absent = matches!(absence, Absence::Missing(_))
                && !board::is_seen(&system::read)
                && !system::is_on_pci(PCI_VENDOR);
            return found;
        }
    };
    match count(driver) {
        Ok(0) => found.remarks.push("no CUDA: the driver has no device".into()),
        Ok(count) => {
            for ordinal in 0..count {
                match chip(driver, ordinal) {
                    Ok(chip) => found.chips.push(chip),
                    Err(error) => found.remarks.push(format!("CUDA device {ordinal}: {error}")),
                }
            }
        }
        Err(error) => found.remarks.push(format!("no CUDA: {error}")),
    }
    found
}

fn count(driver: &Driver) -> Result<c_int, RuntimeError> {
    let mut count = 0;
    // SAFETY: writes one number.
    check("cuDeviceGetCount", unsafe { (driver.table.cuDeviceGetCount)(&mut count) })?;
    Ok(count.clamp(0, DEVICES_MAX))
}

/// The driver's name for a device by its number.
pub(crate) fn device(driver: &Driver, ordinal: c_int) -> Result<CUdevice, RuntimeError> {
    let mut device = 0;
    // SAFETY: writes one number.
    check("cuDeviceGet", unsafe { (driver.table.cuDeviceGet)(&mut device, ordinal) })?;
    Ok(device)
}

/// What a device is.
pub(crate) fn chip(driver: &Driver, ordinal: c_int) -> Result<Chip, RuntimeError> {
    let device = device(driver, ordinal)?;
    let ask = |attribute| attribute_of(driver, device, attribute);
    let (major, minor) = (
        ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let integrated = ask(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0;
    let mut name = name(driver, device)?;
    // The driver says "Orin" to several boards.
    if integrated && let Some(board) = board::tegra(&system::read) {
        name = format!("{name}, {}", board.model);
    }
    Ok(Chip {
        vendor: Vendor::Nvidia,
        ordinal: ordinal as u32,
        name,
        architecture: format!("sm_{major}{minor}"),
        warp_threads: ask(Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE)?,
        units: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_bytes: memory_bytes(driver, device)?,
        integrated,
        driver: driver.version,
    })
}

fn attribute_of(
    driver: &Driver,
    device: CUdevice,
    attribute: CUdevice_attribute,
) -> Result<u32, RuntimeError> {
    let mut value: c_int = 0;
    // SAFETY: writes one number.
    check("cuDeviceGetAttribute", unsafe {
        (driver.table.cuDeviceGetAttribute)(&mut value, attribute, device)
    })?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn name(driver: &Driver, device: CUdevice) -> Result<String, RuntimeError> {
    let mut name = [0u8; NAME_BYTES];
    // SAFETY: writes at most so many bytes.
    check("cuDeviceGetName", unsafe {
        (driver.table.cuDeviceGetName)(name.as_mut_ptr().cast::<c_char>(), NAME_BYTES as c_int, device)
    })?;
    let text = CStr::from_bytes_until_nul(&name).map(CStr::to_string_lossy);
    Ok(text.map_or_else(|_| "a device without a name".into(), |text| text.trim().to_string()))
}

fn memory_bytes(driver: &Driver, device: CUdevice) -> Result<u64, RuntimeError> {
    let mut bytes = 0;
    // SAFETY: writes one number.
    check("cuDeviceTotalMem", unsafe { (driver.table.cuDeviceTotalMem_v2)(&mut bytes, device) })?;
    Ok(bytes as u64)
}
