//! What an artefact is by its first bytes, and whether all of it is there.
//!
//! Runtimes take an image by its address alone and read as far as its own headers say, so a file that was cut short
//! would send them beyond its end. Whether the bytes are the right ones is for whoever keeps their digests.

/// An artefact that a runtime may be given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Image<'a> {
    /// Machine code, whole as far as its headers tell.
    Elf {
        /// For which kind of machine.
        machine: u16,
        /// The file.
        bytes: &'a [u8],
    },
    /// Text without a zero in it.
    Ptx(&'a str),
}

/// The machine that an ELF file of NVIDIA's is for.
pub const MACHINE_CUDA: u16 = 190;
/// The machine that an ELF file of AMD's is for.
pub const MACHINE_AMDGPU: u16 = 224;

/// Longest artefact that is looked at, bytes: a thousand times what one of ours takes.
pub const IMAGE_BYTES_MAX: usize = 128 << 20;

const HEADER_BYTES: usize = 64;
const PROGRAM_BYTES: u64 = 56;
const SECTION_BYTES: u64 = 64;
/// The kind of section that has a size and no bytes.
const NOBITS: u64 = 8;

impl<'a> Image<'a> {
    /// What the bytes are, or why they cannot be loaded.
    pub fn of(bytes: &'a [u8]) -> Result<Self, &'static str> {
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err("the image is too long");
        }
        if bytes.starts_with(b"\x7fELF") {
            return elf(bytes);
        }
        match str::from_utf8(bytes) {
            Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(Self::Ptx(text)),
            _ => Err("the image is neither ELF nor text"),
        }
    }
}

fn elf(bytes: &[u8]) -> Result<Image<'_>, &'static str> {
    const SHORT: &str = "the image is shorter than its headers say";
    if bytes.len() < HEADER_BYTES {
        return Err(SHORT);
    }
    if bytes[4..6] != [2, 1] {
        return Err("the image is not ELF of 64 bits, little end first");
    }
    let programs = entries(bytes, 32, 54, PROGRAM_BYTES).ok_or(SHORT)?;
    let sections = entries(bytes, 40, 58, SECTION_BYTES).ok_or(SHORT)?;
    // A program's offset and size in the file stand at 8 and 32 of its header, a section's at 24 and 32.
    let whole =
        programs.into_iter().all(|at| covers(bytes, number(bytes, at + 8, 8), number(bytes, at + 32, 8)))
            && sections.into_iter().all(|at| {
                number(bytes, at + 4, 4) == NOBITS
                    || covers(bytes, number(bytes, at + 24, 8), number(bytes, at + 32, 8))
            });
    if !whole {
        return Err(SHORT);
    }
    Ok(Image::Elf { machine: number(bytes, 18, 2) as u16, bytes })
}

/// Where the headers of one table lie, if all of them are there and of the size that this format has.
fn entries(
    bytes: &[u8],
    offset_at: usize,
    size_at: usize,
    size: u64,
) -> Option<impl IntoIterator<Item = usize>> {
    let (offset, count) = (number(bytes, offset_at, 8), number(bytes, size_at + 2, 2));
    let sized = count == 0 || number(bytes, size_at, 2) == size;
    (sized && covers(bytes, offset, count * size))
        .then(|| (0..count).map(move |entry| (offset + entry * size) as usize))
}

fn covers(bytes: &[u8], offset: u64, size: u64) -> bool {
    offset.checked_add(size).is_some_and(|end| end <= bytes.len() as u64)
}

/// The number of `width` bytes at `at`, which the caller knows to be there.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, one program of 16 bytes, one section of the same bytes.
    #[rustfmt::skip]
    fn file() -> Vec<u8> {
        let mut file = vec![0; 64 + 56 + 64 + 16];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18] = MACHINE_AMDGPU as u8;
        // Where the programs' headers are, how long, how many; the same of the sections'; what the two cover.
        for (at, value) in [
            (32, 64), (54, 56), (56, 1),
            (40, 120), (58, 64), (60, 1),
            (64 + 8, 184), (64 + 32, 16),
            (120 + 24, 184), (120 + 32, 16),
        ] {
            file[at] = value;
        }
        file
    }

    #[test]
    fn a_whole_file_is_known_and_every_shorter_one_refused() {
        let file = file();
        assert_eq!(Image::of(&file), Ok(Image::Elf { machine: MACHINE_AMDGPU, bytes: &file }));
        for length in 4..file.len() {
            assert!(Image::of(&file[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_never_panics_and_never_reaches_beyond_its_end() {
        let file = file();
        for at in 4..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] = value;
                let known = Image::of(&file).is_ok();
                // Sizes and offsets may not grow.
                let sized = [32, 33, 40, 54, 56, 58, 60, 72, 79, 96, 103, 144, 151, 152, 159].contains(&at);
                assert!(!(known && sized && value == 0xff), "byte {at} set to {value}");
            }
        }
    }

    #[test]
    fn a_section_without_bytes_may_be_of_any_size() {
        let mut file = file();
        file[120 + 32 + 7] = 0xff;
        assert!(Image::of(&file).is_err());
        file[120 + 4] = NOBITS as u8;
        assert!(Image::of(&file).is_ok());
    }

    #[test]
    fn text_is_ptx_and_anything_else_is_not() {
        assert_eq!(Image::of(b".version 7.0\n"), Ok(Image::Ptx(".version 7.0\n")));
        for bad in [&b""[..], b".version\0 7.0", b"\xff\xfe", b"\x7fELF", b"\x50\xed\x55\xba\x01\0"] {
            assert!(Image::of(bad).is_err(), "{bad:?}");
        }
    }
}
