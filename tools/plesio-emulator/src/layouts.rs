//! The structs that both sides of a launch write down: Rust's list of them as a C++ text that compiles where both agree.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::Command;

use plesio_launch::params::Layout;

/// A translation unit that asserts length, offsets and lengths of fields of each struct, and of nothing else.
#[must_use]
pub fn assertions(layouts: &[&[Layout]]) -> String {
    let mut text = String::from("#include <cstddef>\n#include \"plesio.cu\"\n");
    let made = |layout: &Layout| layout.names.iter().map(|name| (*name, *layout)).collect::<Vec<_>>();
    for (name, Layout { len_bytes, fields, .. }) in layouts.iter().copied().flatten().flat_map(made) {
        let _ = writeln!(text, "static_assert(sizeof({name}) == {len_bytes}, \"{name}\");");
        for field in fields {
            let (path, offset) = (format!("{name}::{}", field.name), field.offset_bytes);
            let _ = writeln!(
                text,
                "static_assert(offsetof({name}, {}) == {offset} && sizeof({path}) == {}, \"{path}\");",
                field.name, field.len_bytes
            );
        }
    }
    text
}

/// Every kernel of an emulator's program, with the name of the struct that it takes.
///
/// # Errors
/// The program does not run.
pub fn kernels(program: &Path) -> io::Result<Vec<(String, String)>> {
    let output = Command::new(program).arg("--list").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pair = |line: &str| line.split_once(' ').map(|(kernel, params)| (kernel.into(), params.into()));
    Ok(text.lines().filter_map(pair).collect())
}
