//! What every kernel takes of a chip, as the vendors' tools tell it, and what none of them may take: memory behind
//! its registers.
//!
//! A sorting network whose values do not stay in registers is slower by a factor, and nothing but these reports shows
//! it. Reads reports and judges; runs nothing. Invariant: a report that is not understood is an error, never a kernel
//! without faults.

use std::collections::BTreeSet;

/// One kernel, compiled for one architecture.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Kernel {
    pub(super) name: String,
    /// Of one thread: NVIDIA's registers, AMD's vector registers.
    pub(super) registers: Option<u64>,
    /// Of one block.
    pub(super) shared_bytes: Option<u64>,
    /// What breaks the gate, one phrase each.
    pub(super) faults: Vec<String>,
}

impl Kernel {
    fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Notes a fault where there must be none of something.
    fn none_of(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.faults.push(format!("{count} {what}"));
        }
    }
}

/// Reads what `ptxas -v` says, of kernels and of functions that were not made part of one.
pub(super) fn of_ptxas(said: &str) -> Result<Vec<Kernel>, String> {
    let mut kernels: Vec<Kernel> = Vec::new();
    let (mut entries, mut framed) = (Vec::new(), BTreeSet::new());
    for line in said.lines() {
        let line = line.trim();
        if let Some(quoted) = line.split_once("Compiling entry function '").map(|(_, rest)| rest) {
            entries.extend(quoted.split('\'').next());
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            kernels.push(Kernel::new(name.trim()));
        } else if line.contains("bytes stack frame") {
            let kernel = kernels.last_mut().ok_or("ptxas tells a stack frame of no function")?;
            let all = ["bytes stack frame", "bytes spill stores", "bytes spill loads"];
            for what in all {
                kernel.none_of(
                    before(line, what).ok_or_else(|| format!("ptxas tells no {what}: {line:?}"))?,
                    what,
                );
            }
            framed.insert(kernel.name.clone());
        } else if let Some((_, used)) = line.split_once(": Used ") {
            let kernel = kernels.last_mut().ok_or("ptxas tells registers of no function")?;
            kernel.registers =
                Some(before(used, "registers").ok_or_else(|| format!("ptxas tells no registers: {line:?}"))?);
            kernel.shared_bytes = Some(before(used, "bytes smem").unwrap_or(0));
            // What functions that it calls keep on the stack is not in its own frame.
            if kernel.faults.is_empty() {
                let what = "bytes cumulative stack size";
                kernel.none_of(before(used, what).unwrap_or(0), what);
            }
        }
    }
    // A function that stayed one, without a stack of its own, is its callers' matter: theirs is cumulative.
    kernels.retain(|kernel| entries.contains(&kernel.name.as_str()) || !kernel.faults.is_empty());
    match entries.iter().find(|name| !framed.contains(**name)) {
        Some(name) => Err(format!("ptxas compiled {name} and says nothing of its stack; is it run with -v?")),
        None if entries.is_empty() => Err("ptxas tells of no kernel".into()),
        None => Ok(kernels),
    }
}

/// Reads what `llvm-readelf --notes` prints of one of AMD's objects: the metadata of "User Guide for AMDGPU Backend",
/// code object version 3 and later.
pub(super) fn of_notes(text: &str) -> Result<Vec<Kernel>, String> {
    let mut kernels = Vec::new();
    let mut fields: Vec<(&str, &str)> = Vec::new();
    let rows = text.lines().skip_while(|line| *line != "amdhsa.kernels:").skip(1);
    for line in rows.take_while(|line| line.starts_with(' ')) {
        // One kernel's own fields stand four columns in, the first behind a dash; what is further in is of its
        // arguments.
        if line.starts_with("  - ") && !fields.is_empty() {
            kernels.push(of_fields(&std::mem::take(&mut fields))?);
        }
        let field = line.strip_prefix("  - ").or_else(|| line.strip_prefix("    ")).unwrap_or_default();
        fields.extend(field.strip_prefix('.').and_then(|field| field.split_once(':')));
    }
    if fields.is_empty() {
        return Err("the notes tell of no kernel".into());
    }
    kernels.push(of_fields(&fields)?);
    Ok(kernels)
}

fn of_fields(fields: &[(&str, &str)]) -> Result<Kernel, String> {
    let field = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.trim());
    let name = field("name").ok_or("the notes tell of a kernel without a name")?;
    let number = |what: &str| {
        let value = field(what).ok_or_else(|| format!("the notes tell no {what} of {name}"))?;
        value.parse::<u64>().map_err(|_| format!("the notes tell {value:?} as {what} of {name}"))
    };
    let mut kernel = Kernel::new(name);
    kernel.registers = Some(number("vgpr_count")?);
    kernel.shared_bytes = Some(number("group_segment_fixed_size")?);
    kernel.none_of(number("private_segment_fixed_size")?, "bytes scratch");
    kernel.none_of(number("vgpr_spill_count")?, "vector registers spilled");
    kernel.none_of(number("sgpr_spill_count")?, "scalar registers spilled");
    match field("uses_dynamic_stack") {
        Some("false") => {}
        Some(_) => kernel.faults.push("a stack of unknown size".into()),
        None => return Err(format!("the notes tell no uses_dynamic_stack of {name}")),
    }
    Ok(kernel)
}

/// Reads PTX itself, where there is no ptxas: memory that is declared there is memory that is used.
pub(super) fn of_ptx(text: &str) -> Result<Vec<Kernel>, String> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some((_, entry)) = line.split_once(".entry ") {
            kernels.push(Kernel::new(entry.split('(').next().unwrap_or_default().trim()));
        } else if line.starts_with(".local ")
            && let Some(kernel) = kernels.last_mut()
        {
            kernel.faults.push(format!("local memory: {line}"));
        }
    }
    if kernels.is_empty() { Err("the PTX holds no kernel".into()) } else { Ok(kernels) }
}

/// The number that stands before some words.
fn before(line: &str, words: &str) -> Option<u64> {
    line.split(',').find_map(|part| part.trim().strip_suffix(words)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nvcc 13.0.88 said of `spill.cu` for sm_80.
    const PTXAS: &str = include_str!("captured/ptxas.txt");
    /// What llvm-readelf 19.1.7 printed of `spill.cu` for gfx90a.
    const NOTES: &str = include_str!("captured/notes.txt");

    fn faults(kernels: &[Kernel]) -> Vec<(&str, String)> {
        kernels.iter().map(|kernel| (kernel.name.as_str(), kernel.faults.join(", "))).collect()
    }

    #[test]
    fn ptxas_names_the_kernels_that_spill_or_keep_a_stack() {
        let kernels = of_ptxas(PTXAS).unwrap();
        let spilt = "168 bytes stack frame, 168 bytes spill stores, 168 bytes spill loads";
        assert_eq!(
            faults(&kernels),
            [("stacked", "256 bytes stack frame".into()), ("spills", spilt.into()), ("clean", String::new())]
        );
        assert_eq!((kernels[2].registers, kernels[2].shared_bytes), (Some(10), Some(0)));
    }

    #[test]
    fn ptxas_tells_shared_memory_where_there_is_some() {
        // As ptxas 13.0.88 said of a block sum.
        let said = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'plesio_sum' for 'sm_75'
ptxas info    : Function properties for plesio_sum
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 1 barriers, 2048 bytes smem, 376 bytes cmem[0]
ptxas info    : Compile time = 11.688 ms
";
        let kernels = of_ptxas(said).unwrap();
        assert_eq!((kernels[0].registers, kernels[0].shared_bytes), (Some(20), Some(2048)));
        assert!(kernels[0].faults.is_empty());
    }

    #[test]
    fn what_called_functions_keep_on_the_stack_is_a_fault_too() {
        // As ptxas 13.0.88 said of a kernel that calls a function with an array, and of one that calls a recursive
        // function.
        let said = "ptxas info    : Compiling entry function 'calls' for 'sm_90'
ptxas info    : Function properties for calls
    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 0 barriers, 32 bytes cumulative stack size
ptxas info    : Function properties for _Z5frameiPKi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'recurses' for 'sm_90'
ptxas info    : Function properties for recurses
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 28 registers, used 0 barriers
ptxas info    : Function properties for _Z4deepiPKi
    48 bytes stack frame, 44 bytes spill stores, 44 bytes spill loads
";
        assert_eq!(
            faults(&of_ptxas(said).unwrap()),
            [
                ("calls", "32 bytes stack frame".into()),
                ("recurses", String::new()),
                ("_Z4deepiPKi", "48 bytes stack frame, 44 bytes spill stores, 44 bytes spill loads".into()),
            ]
        );
        let said = said.replace("    32 bytes stack frame", "    0 bytes stack frame");
        assert_eq!(faults(&of_ptxas(&said).unwrap())[0], ("calls", "32 bytes cumulative stack size".into()));
    }

    #[test]
    fn notes_name_the_kernels_that_spill_or_keep_scratch() {
        let kernels = of_notes(NOTES).unwrap();
        assert_eq!(
            faults(&kernels),
            [
                ("clean", String::new()),
                ("spills", "772 bytes scratch, 192 vector registers spilled".into()),
                ("stacked", "272 bytes scratch".into())
            ]
        );
        assert_eq!((kernels[0].registers, kernels[0].shared_bytes), (Some(2), Some(0)));
        let dynamic = NOTES.replace(".uses_dynamic_stack: false", ".uses_dynamic_stack: true");
        assert_eq!(faults(&of_notes(&dynamic).unwrap())[0], ("clean", "a stack of unknown size".into()));
    }

    #[test]
    fn ptx_that_declares_local_memory_is_named() {
        let text = ".version 6.3\n.visible .entry clean(\n)\n{\n}\n.visible .entry stacked(\n\t.param .u64 a\n)\n{\n\
                    \t.local .align 4 .b8 \t__local_depot2[256];\n\tst.local.u32 \t[%rd20], %r12;\n}\n";
        let kernels = of_ptx(text).unwrap();
        let local = "local memory: .local .align 4 .b8 \t__local_depot2[256];";
        assert_eq!(faults(&kernels), [("clean", String::new()), ("stacked", local.into())]);
    }

    #[test]
    fn reports_that_lack_something_are_errors() {
        for text in
            ["", "ptxas info    : 0 bytes gmem\n", "    0 bytes stack frame\n", "x: Used 8 registers\n"]
        {
            assert!(of_ptxas(text).is_err(), "{text:?}");
        }
        // Every line but those that tell nothing of a stack is missed.
        for (index, line) in PTXAS.lines().enumerate().filter(|(_, line)| line.contains("bytes stack frame"))
        {
            let cut: Vec<&str> =
                PTXAS.lines().enumerate().filter(|(at, _)| *at != index).map(|(_, line)| line).collect();
            assert!(of_ptxas(&cut.join("\n")).is_err(), "without {line:?}");
        }
        assert!(of_ptxas(&PTXAS.replace("spill loads", "spilled loads")).is_err());
        assert!(of_notes("").is_err() && of_notes("amdhsa.kernels:\namdhsa.target:   gfx90a\n").is_err());
        for field in [
            "name",
            "vgpr_count",
            "group_segment_fixed_size",
            "private_segment_fixed_size",
            "vgpr_spill_count",
            "sgpr_spill_count",
            "uses_dynamic_stack",
        ] {
            assert!(of_notes(&NOTES.replace(field, "other")).is_err(), "without {field}");
        }
        assert!(of_notes(&NOTES.replace("spill_count: 0", "spill_count: none")).is_err());
        assert!(of_ptx(".version 6.3\n").is_err());
    }

    #[test]
    fn an_argument_s_name_is_not_the_kernel_s() {
        let named = NOTES.replace(
            "        .offset:         16",
            "        .name:           which\n        .offset:         16",
        );
        assert_eq!(of_notes(&named), of_notes(NOTES));
    }
}
