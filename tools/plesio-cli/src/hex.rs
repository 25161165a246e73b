//! Bytes as people and documents write them.

use plesio_wire::NodeKey;

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a node is called: the first digits of its key.
pub(crate) fn name(key: NodeKey) -> String {
    hex(&key.0.to_le_bytes())
}

/// `N` bytes from exactly twice as many digits.
pub(crate) fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_whole_or_not_at_all() {
        assert_eq!(parse(&hex(&[0, 0x7F, 0xFF])), Some([0, 0x7F, 0xFF]));
        for wrong in ["", "0", "00000g", "+1+1+1", "0000000", "é0000"] {
            assert_eq!(parse::<3>(wrong), None, "{wrong:?}");
        }
    }
}
