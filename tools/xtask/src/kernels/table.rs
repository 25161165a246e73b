//! The table of registers and shared memory: a row for each kernel, a column for each chip.

use std::collections::BTreeMap;

use super::resources::Kernel;

/// The kernels of one artefact on one chip.
pub(super) struct Column {
    /// What the artefact is, and the chip.
    pub(super) title: (&'static str, String),
    /// Both in a sentence.
    pub(super) target: String,
    pub(super) kernels: Vec<Kernel>,
}

/// Wide enough for `1100` and a gap.
const CELL: usize = 5;
const HEADINGS: [&str; 2] = ["registers", "of a thread"];

/// Registers of a thread by kernel and chip, and the most shared memory that any chip's version takes.
pub(super) fn text(columns: &[Column]) -> String {
    let mut rows: BTreeMap<&str, (u64, Vec<String>)> = BTreeMap::new();
    for (index, column) in columns.iter().enumerate() {
        for kernel in &column.kernels {
            let (shared_bytes, cells) = rows.entry(&kernel.name).or_default();
            *shared_bytes = (*shared_bytes).max(kernel.shared_bytes.unwrap_or(0));
            cells.resize(index, String::new());
            let fault = if kernel.faults.is_empty() { "" } else { "!" };
            cells.push(kernel.registers.map_or("-".into(), |registers| registers.to_string()) + fault);
        }
    }
    let Some(width) = rows.keys().map(|name| name.len()).max() else { return String::new() };
    let width = width.max(HEADINGS[1].len());
    let (mut kinds, mut chips) = (String::new(), String::new());
    for (index, column) in columns.iter().enumerate() {
        let (kind, chip) = &column.title;
        let first = index == 0 || columns[index - 1].title.0 != *kind;
        if first {
            // The heading may run over the columns after it; the next one starts above its own first column.
            kinds = format!("{kinds:<at$}{kind}", at = index * CELL + 1);
        }
        chips += &format!("{chip:>CELL$}");
    }
    let mut text = format!("{:<width$} {:>7} {kinds}\n", HEADINGS[0], "shared");
    text += &format!("{:<width$} {:>7}{chips}\n", HEADINGS[1], "bytes");
    for (name, (shared_bytes, cells)) in &rows {
        let line: String = cells.iter().map(|cell| format!("{cell:>CELL$}")).collect();
        text += &format!("{name:<width$} {shared_bytes:>7}{line}\n");
    }
    text
}
