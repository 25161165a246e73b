//! Plans of small rows: what Python is told is what the accelerator would do.

use std::collections::BTreeSet;

use plesio_launch::Vendor;

use super::*;

const SMALL: Sizes = Sizes { moved_bytes: 1 << 18, width: 128, tokens: 40 };

fn chip() -> Chip {
    Chip {
        vendor: Vendor::Nvidia,
        ordinal: 0,
        name: "none".into(),
        architecture: "sm_90".into(),
        warp_threads: 32,
        units: 1,
        memory_bytes: 0,
        integrated: true,
        driver: 0,
    }
}

fn small() -> Vec<Row> {
    names().map(|name| plan(&chip(), SMALL, name).expect("every row is planned")).collect()
}

#[test]
fn every_tensor_of_every_row_is_a_buffer_that_some_launch_uses() {
    for row in small() {
        let used: BTreeSet<usize> = row
            .launches
            .iter()
            .map(|launch| &launch.params)
            .chain(row.buffers.iter().filter_map(|buffer| buffer.contents.as_ref()))
            .flat_map(|bytes| bytes.places.iter().map(|(_, buffer, _)| *buffer))
            .collect();
        let tensors: BTreeSet<usize> = used.iter().filter_map(|buffer| row.buffers[*buffer].tensor).collect();
        assert_eq!(tensors.len(), row.tensors.len(), "{}: a tensor that no kernel sees", row.name);
        assert_eq!(used.len(), row.buffers.len(), "{}: a buffer that no kernel sees", row.name);
    }
}

#[test]
fn buffers_of_tensors_are_as_long_as_these() {
    for row in small() {
        for buffer in row.buffers.iter().filter(|buffer| buffer.tensor.is_some()) {
            let tensor = &row.tensors[buffer.tensor.expect("filtered")];
            let each = match tensor.kind {
                "int8" => 1,
                "bfloat16" | "float16" => 2,
                "float32" | "int32" => 4,
                "int64" => 8,
                other => panic!("{other} is no type of a tensor"),
            };
            assert_eq!(buffer.len_bytes, each * tensor.len, "{} {}", row.name, tensor.name);
        }
    }
}

#[test]
fn a_row_moves_what_its_tensors_have_in_all() {
    for row in small() {
        // What is read and written moves twice; a selection is made in two passes; the table counts neither h of a
        // low-rank layer nor, of its backward pass, the factors.
        let factors = ["a", "b", "da", "db"];
        let moved: usize = row
            .buffers
            .iter()
            .filter_map(|buffer| Some((buffer.len_bytes, &row.tensors[buffer.tensor?])))
            .filter(|(_, tensor)| !(row.name == "lora_backward" && factors.contains(&&*tensor.name)))
            .filter(|(_, tensor)| tensor.name != "h")
            .map(|(bytes, tensor)| {
                let twice = tensor.changes && tensor.fill != Fill::Poison
                    || row.name == "top_k" && tensor.name == "x";
                bytes * (1 + usize::from(twice))
            })
            .sum();
        let share = row.moved_bytes as f64 / moved as f64;
        assert!((0.95..=1.01).contains(&share), "{}: {} of {moved} bytes", row.name, row.moved_bytes);
        assert!(row.moved_bytes > SMALL.moved_bytes as u64 / 20, "{} is nearly empty", row.name);
    }
}

#[test]
fn the_specifications_sizes_are_those_of_its_table() {
    let real = Sizes { moved_bytes: 1 << 20, width: 4096, tokens: 256 };
    let moved_mb = |name: &str| {
        let row = plan(&chip(), real, name).expect("the row is planned");
        (row.moved_bytes as f64 / 1e5).round() / 10.0
    };
    assert_eq!(moved_mb("lora_decode"), 9.2);
    assert_eq!(moved_mb("product_q8"), 18.1); // 17.8 are the base's alone
    assert_eq!(moved_mb("lora_backward"), 8.4); // of 4096 tokens: 134
}

#[test]
fn a_list_of_addresses_is_contents_that_are_patched_too() {
    let rows = small();
    let decode = rows.iter().find(|row| row.name == "lora_decode").expect("it is there");
    let contents: Vec<_> = decode.buffers.iter().filter_map(|buffer| buffer.contents.as_ref()).collect();
    let [list] = contents[..] else { panic!("one list of rows") };
    assert_eq!(list.places.len(), 64, "a factor of each kind for each of 32 rows");
}

#[test]
fn reports_begin_as_they_have_to() {
    let rows = small();
    let commit = rows.iter().find(|row| row.name == "commit").expect("it is there");
    let reports = commit.buffers.iter().filter_map(|buffer| buffer.contents.as_ref());
    assert_eq!(reports.map(|bytes| bytes.hex.as_str()).collect::<Vec<_>>(), ["ffffffffffffffff"]);
}
