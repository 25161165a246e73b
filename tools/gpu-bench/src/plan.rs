//! What is to be timed, as Python is told it: for each row its tensors, the launches that the accelerator makes of
//! the call, and what it is measured against.
//!
//! Knows: which buffer of a recorded call is which tensor. Does not know: geometry and parameters, which are recorded
//! from the accelerator itself. Invariant: every address in parameters and lists is of a buffer that the plan
//! describes.
//!
//! Tensors are known by their first eight bytes: what goes in bears its number, what comes out the recorder's mark.

use bytemuck::Pod;
use plesio_launch::recorder::{HEAD_BYTES, Place, RecordedBuffer, Recorder, Recording, mark};
use plesio_launch::{Accelerator, Chip};
use serde::Serialize;

mod rows;
#[cfg(test)]
mod tests;

/// What a tensor's first bytes say, as far as they are the same for all: finite numbers in every type.
const TAG: u64 = 0x1B1B_2C2C_3D3D_0000;
/// Longest contents that kernels read as they are: lists and reports.
const CONTENTS_BYTES_MAX: usize = HEAD_BYTES;

/// How large rows are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// What a row of many elements moves, bytes.
    pub(crate) moved_bytes: usize,
    /// Width of the low-rank layers.
    pub(crate) width: usize,
    /// Tokens of a training step.
    pub(crate) tokens: usize,
}

impl Sizes {
    /// Elements of which each moves so many bytes, in whole pages of every type.
    fn elements(self, bytes_each: f64) -> usize {
        const PAGE: usize = 1024;
        ((self.moved_bytes as f64 / bytes_each) as usize / PAGE).max(1) * PAGE
    }
}

/// What a kernel's numbers are, as numpy calls them.
pub(crate) trait Typed: Pod {
    const TYPE: &'static str;
}

macro_rules! typed {
    ($($type:ty = $name:literal),*) => { $(impl Typed for $type { const TYPE: &'static str = $name; })* };
}

// A bfloat16 and a binary16 are both `u16` to us: what they are stands with the tensor.
typed!(f32 = "float32", u16 = "bfloat16", i8 = "int8", i32 = "int32", u32 = "int32", i64 = "int64");

/// What a tensor holds at first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fill {
    /// Normally distributed.
    Normal,
    /// The same, a hundredth as large.
    Little,
    /// Squares of such.
    Squares,
    /// Integers of 20 bits with a sign.
    Slot,
    /// Integers of 40 bits with a sign.
    Master,
    /// Any bits.
    Bits,
    /// Codes from -127 to 127.
    Codes,
    /// Scales of codes, binary16.
    Scales,
    /// All bits set: NaN, or a number that is wrong.
    Poison,
}

#[derive(Debug, Serialize)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) len: usize,
    pub(crate) fill: Fill,
    /// Kernels write it.
    pub(crate) changes: bool,
}

/// A buffer of the launches: a tensor, contents of its own, or room for whatever kernels leave for each other.
#[derive(Debug, Serialize)]
pub(crate) struct Buffer {
    pub(crate) len_bytes: usize,
    pub(crate) tensor: Option<usize>,
    pub(crate) contents: Option<Bytes>,
}

/// Bytes with addresses among them.
#[derive(Debug, Serialize)]
pub(crate) struct Bytes {
    pub(crate) hex: String,
    /// Where the eight bytes of each address begin, its buffer, and where in it.
    pub(crate) places: Vec<(usize, usize, u64)>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Launch {
    pub(crate) kernel: String,
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    pub(crate) params: Bytes,
}

/// What the specification asks of a row on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Must {
    /// So much of the floor.
    Share(f64),
    /// So many microseconds at most.
    Us(f64),
}

/// Somebody else's way to the same result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Rival {
    /// Its name in `twins.py` or `twins_triton.py`.
    pub(crate) twin: &'static str,
    /// How much longer it has to take.
    pub(crate) at_least: f64,
}

/// One line of the specification's table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: String,
    /// The least that any version moves.
    pub(crate) moved_bytes: u64,
    pub(crate) must: Must,
    pub(crate) rivals: Vec<Rival>,
    /// What twins need beside tensors.
    pub(crate) numbers: serde_json::Value,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) launches: Vec<Launch>,
}

/// The names of all rows whose kernel there is.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    rows::ROWS.iter().map(|(name, _)| *name)
}

/// The row of the table that has this name; it must be one of [`names`]. Takes as much of the host's memory as the
/// row has.
///
/// # Errors
/// A call that the accelerator did not launch, or whose buffers are not known: said with the row's name.
pub(crate) fn plan(chip: &Chip, sizes: Sizes, name: &str) -> Result<Row, String> {
    let (name, write) = rows::ROWS.iter().find(|(known, _)| *known == name).expect("a name of this table");
    let mut draft = Draft { device: Recorder::open(chip), tensors: Vec::new(), marks: Vec::new() };
    let line = write(&mut draft, sizes);
    draft.close(name, line).map_err(|why| format!("row {name}: {why}"))
}

/// What a row says of itself.
pub(crate) struct Line {
    what: String,
    moved_bytes: u64,
    must: Must,
    rivals: Vec<Rival>,
    numbers: serde_json::Value,
}

/// A row that is being written: the call is made on a recorder with tensors of its real sizes.
pub(crate) struct Draft {
    pub(crate) device: Accelerator<Recorder>,
    tensors: Vec<Tensor>,
    /// What tensors that went in begin with, and those that came out.
    marks: Vec<Option<u64>>,
}

impl Draft {
    fn add<T: Typed>(&mut self, name: String, len: usize, fill: Fill, changes: bool) -> Vec<T> {
        let mut values = vec![T::zeroed(); len];
        let kind = if fill == Fill::Scales { "float16" } else { T::TYPE };
        self.tensors.push(Tensor { name, kind, len, fill, changes });
        let tag = TAG | self.tensors.len() as u64;
        let goes_in = fill != Fill::Poison;
        if goes_in {
            bytemuck::cast_slice_mut::<T, u8>(&mut values)[..8].copy_from_slice(&tag.to_ne_bytes());
        }
        self.marks.push(goes_in.then_some(tag));
        values
    }

    /// A tensor that kernels only read.
    pub(crate) fn input<T: Typed>(&mut self, name: &str, len: usize, fill: Fill) -> Vec<T> {
        self.add(name.into(), len, fill, false)
    }

    /// Several of the same length, which lie one behind the other.
    pub(crate) fn inputs<T: Typed>(
        &mut self,
        name: &str,
        count: usize,
        len: usize,
        fill: Fill,
    ) -> Vec<Vec<T>> {
        (0..count).map(|index| self.add(format!("{name}.{index}"), len, fill, false)).collect()
    }

    /// A tensor that kernels read and write.
    pub(crate) fn update<T: Typed>(&mut self, name: &str, len: usize, fill: Fill) -> Vec<T> {
        self.add(name.into(), len, fill, true)
    }

    /// A tensor that kernels write; the call is over when [`Self::written`] is told of it.
    pub(crate) fn output<T: Typed>(&mut self, name: &str, len: usize) -> Vec<T> {
        self.add(name.into(), len, Fill::Poison, true)
    }

    /// The same of codes' scales.
    pub(crate) fn scales_output(&mut self, name: &str, len: usize) -> Vec<u16> {
        let values = self.output(name, len);
        self.tensors.last_mut().expect("just added").kind = "float16";
        values
    }

    /// What came back in an output.
    pub(crate) fn written<T: Typed>(&mut self, name: &str, values: &[T]) {
        let index =
            self.tensors.iter().position(|tensor| tensor.name == name).expect("an output of this row");
        let (head, _) =
            bytemuck::cast_slice::<T, u8>(values).split_first_chunk::<8>().expect("rows have elements");
        self.marks[index] = Some(u64::from_ne_bytes(*head));
    }

    fn close(self, name: &'static str, line: Line) -> Result<Row, String> {
        if let Some(news) = self.device.take_news().first() {
            return Err(news.clone());
        }
        let recording = self.device.runtime().take();
        let buffers = recording.buffers.iter().enumerate();
        let buffers = buffers.map(|(number, buffer)| self.buffer(&recording, number, buffer));
        let buffers = buffers.collect::<Result<Vec<_>, String>>()?;
        let launches = recording.launches.iter().map(|launch| {
            let params = patched(&recording, &launch.params)?;
            Ok(Launch {
                kernel: launch.kernel.clone(),
                blocks: launch.blocks,
                threads: launch.threads,
                params,
            })
        });
        let launches = launches.collect::<Result<Vec<_>, String>>()?;
        if launches.is_empty() {
            return Err("the accelerator launched nothing".into());
        }
        let Line { what, moved_bytes, must, rivals, numbers } = line;
        let tensors = self.tensors;
        Ok(Row { name, what, moved_bytes, must, rivals, numbers, tensors, buffers, launches })
    }

    fn buffer(
        &self,
        recording: &Recording,
        number: usize,
        buffer: &RecordedBuffer,
    ) -> Result<Buffer, String> {
        let RecordedBuffer { len_bytes, ref head } = *buffer;
        let begin = head.first_chunk().map_or_else(|| mark(number), |begin| u64::from_ne_bytes(*begin));
        let tensor = self.marks.iter().position(|mark| *mark == Some(begin));
        if tensor.is_none() && len_bytes > CONTENTS_BYTES_MAX && !head.is_empty() {
            return Err(format!("{len_bytes} bytes go in that are no tensor"));
        }
        let own = tensor.is_none() && !head.is_empty();
        let contents = own.then(|| patched(recording, head)).transpose()?;
        Ok(Buffer { len_bytes, tensor, contents })
    }
}

fn patched(recording: &Recording, bytes: &[u8]) -> Result<Bytes, String> {
    let places =
        recording.places(bytes).map_err(|word| format!("{word:#x} looks like an address and is none"))?;
    let places =
        places.into_iter().map(|Place { at_bytes, buffer, offset_bytes }| (at_bytes, buffer, offset_bytes));
    Ok(Bytes { hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), places: places.collect() })
}
