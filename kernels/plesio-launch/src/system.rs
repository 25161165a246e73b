//! The files in which the kernel tells of its hardware.

use std::fs::{self, File};
use std::io::Read;

/// Longest file that is read, bytes; the rest is left.
const TEXT_BYTES_MAX: u64 = 1 << 16;

/// Reads a file by its path; what a board is asked through, so that tests have boards of their own.
pub type Reader<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What one file says, or nothing where it is not there or not readable.
pub fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the PCI bus has a graphics chip or an accelerator of a vendor, by the vendor's number: `0x10de`. Not where
/// the bus is not listed.
pub fn is_on_pci(vendor: &str) -> bool {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    devices.map(|device| device.path()).any(|device| {
        let says = |name: &str| read(device.join(name).to_str()?);
        let class = says("class").is_some_and(|class| CLASSES.iter().any(|prefix| class.starts_with(prefix)));
        class && says("vendor").is_some_and(|found| found.trim() == vendor)
    })
}

/// What PCI calls display controllers and processing accelerators, without their kinds.
const CLASSES: [&str; 2] = ["0x03", "0x12"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_a_missing_one_or_a_folder_is_nothing() {
        assert!(read("/proc/self/status").is_some_and(|text| text.contains("Pid:")));
        assert_eq!(read("/proc/self/no-such-file"), None);
        assert_eq!(read("/proc"), None);
        assert!(read("/dev/zero").is_some_and(|text| text.len() as u64 == TEXT_BYTES_MAX));
    }
}
