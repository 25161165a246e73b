//! The task's judgement, and the whole way from a kernel that spills to its name, where clang is here.

use super::*;

fn kernel(name: &str, fault: &str) -> Kernel {
    let faults = if fault.is_empty() { Vec::new() } else { vec![fault.to_string()] };
    Kernel { name: name.into(), registers: Some(32), shared_bytes: Some(2048), faults }
}

fn column(kind: &'static str, chip: &str, kernels: Vec<Kernel>) -> Column {
    Column { title: (kind, chip.into()), target: format!("sm_{chip}"), kernels }
}

#[test]
fn a_kernel_that_breaks_a_gate_is_named_with_its_target() {
    let columns = [
        column("cubin", "75", vec![kernel("median", ""), kernel("sum", "")]),
        column("cubin", "90", vec![kernel("median", "8 bytes spill loads"), kernel("sum", "")]),
    ];
    assert_eq!(faults(&columns), ["median for sm_90: 8 bytes spill loads"]);
}

#[test]
fn a_target_without_a_kernel_that_others_have_is_named() {
    let columns = [
        column("cubin", "75", vec![kernel("median", ""), kernel("sum", "")]),
        column("cubin", "90", vec![kernel("sum", "")]),
    ];
    assert_eq!(faults(&columns), ["sm_90 lacks median"]);
}

#[test]
fn the_table_has_a_row_for_each_kernel_and_marks_faults() {
    let columns = [
        column("cubin", "75", vec![kernel("median", ""), kernel("sum", "")]),
        column("cubin", "110", vec![kernel("sum", "")]),
        column("code object", "1100", vec![kernel("median", "scratch"), kernel("sum", "")]),
    ];
    assert_eq!(
        table::text(&columns),
        "registers    shared  cubin     code object\n\
         of a thread   bytes   75  110 1100\n\
         median         2048   32       32!\n\
         sum            2048   32   32   32\n"
    );
    assert_eq!(table::text(&[]), "");
}

#[test]
fn flags_that_are_none_and_targets_that_are_none_are_refused() {
    let read = |words: &[&str]| {
        Plan::read(Path::new("."), &words.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map(|plan| plan.is_some())
    };
    assert_eq!(read(&["--help"]), Ok(false));
    assert_eq!(read(&["--target", "gfx1030", "--cuda", "cuda", "--out", "out"]), Ok(true));
    for words in [&["--out"][..], &["--target", "sm_"], &["--fast"], &["--target", "../sm_90"]] {
        assert!(read(words).is_err(), "{words:?}");
    }
}

#[test]
fn an_out_that_is_a_file_is_refused_as_one_before_anything_is_built() {
    let file = std::env::temp_dir().join(format!("xtask-kernels-out-{}", std::process::id()));
    fs::write(&file, "somebody's").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let told = run(&root, &["--out".into(), file.display().to_string()]).unwrap_err();
    let begin = format!("--out {} is no folder; ", file.display());
    assert_eq!(told.strip_prefix(&begin), Some("name one, it is made where there is none"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's");
    fs::remove_file(&file).unwrap();
}

#[test]
fn text_that_only_newer_drivers_take_is_told_with_both_versions_and_what_to_take() {
    let ptx = |version: &str| {
        let text = format!(".version {version}\n.target sm_90\n");
        too_new(&Artefact::new("compute_90".parse().unwrap(), text.into_bytes()))
    };
    assert_eq!(ptx("7.0"), None);
    assert_eq!(
        ptx("7.8").unwrap(),
        "PTX for compute_90 needs a driver of CUDA 11.8 or newer, and must load with every one from CUDA 11.0 on; \
         take --target compute_75, which drivers compile for newer chips too"
    );
}

#[test]
fn a_kernel_that_spills_is_found_in_what_clang_makes_of_it() {
    let toolchain = Toolchain::find(&Places::of_environment(None));
    let scratch = std::env::temp_dir().join(format!("xtask-kernels-{}", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("plesio.cu"), include_str!("captured/spill.cu")).unwrap();
    for name in ["gfx90a", "compute_75"] {
        let built = match toolchain.job(&name.parse().unwrap(), Compiler::Clang) {
            Ok(job) => job.run(&scratch, &scratch).unwrap(),
            Err(lack) => {
                eprintln!("skipped: {lack}");
                continue;
            }
        };
        let mut broken = Vec::new();
        let columns = judge(&[&built], &toolchain, &scratch, &mut broken);
        let told = faults(&columns).join("\n");
        assert_eq!(broken, [""; 0]);
        assert!(told.contains("stacked for ") && !told.contains("clean"), "{name}: {told}");
        // PTX has as many registers as it likes: what spills there, only its assembler knows.
        let assembled = built.artefact.kind() == Kind::CodeObject || toolchain.ptxas().is_ok();
        assert_eq!(told.contains("spills for "), assembled, "{name}: {told}");
    }
    fs::remove_dir_all(&scratch).unwrap();
}
