//! Every order in which holders of one region can meet, by a model checker: run by `cargo xtask loom`.

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;

fn arena() -> Arena {
    let mut plan = ArenaPlan::new("model", 1 << 20);
    plan.push(8);
    Arena::heap(&plan).unwrap()
}

/// Stands for the region's bytes; the checker sees who touches it when.
#[derive(Default)]
struct Bytes(UnsafeCell<u32>);

// SAFETY: only touched under the access word, which is what the models are about; the checker ends a model in which it is
// not so.
unsafe impl Sync for Bytes {}
// SAFETY: as above.
unsafe impl Send for Bytes {}

impl Bytes {
    fn write(&self) {
        self.0.with_mut(|bytes| {
            // SAFETY: as the checker just found, nobody else touches them.
            unsafe { *bytes += 1 }
        });
    }

    fn read(&self) -> u32 {
        self.0.with(|bytes| {
            // SAFETY: as the checker just found, nobody writes them.
            unsafe { *bytes }
        })
    }
}

/// One writes and hands over to readers, another would read or write at any moment.
#[test]
fn a_writer_is_alone_and_readers_see_what_it_wrote() {
    loom::model(|| {
        let (arena, bytes) = (arena(), Arc::new(Bytes::default()));
        let others: Vec<_> = [false, true]
            .map(|exclusive| {
                let (arena, bytes) = (arena.clone(), Arc::clone(&bytes));
                thread::spawn(move || {
                    if exclusive {
                        if let Ok(hold) = Hold::exclusive(&arena, 0) {
                            bytes.write();
                            drop(hold);
                        }
                    } else if let Ok(hold) = Hold::shared(&arena, 0) {
                        bytes.read();
                        drop(hold);
                    }
                })
            })
            .into_iter()
            .collect();
        if let Ok(hold) = Hold::exclusive(&arena, 0) {
            bytes.write();
            let frozen = hold.freeze();
            let seen = bytes.read();
            if let Ok(again) = frozen.thaw() {
                assert_eq!(bytes.read(), seen, "nobody wrote what was frozen");
                bytes.write();
                drop(again);
            }
        }
        others.into_iter().for_each(|other| other.join().unwrap());
        let last = Hold::exclusive(&arena, 0).expect("all have given it back");
        bytes.read();
        drop(last);
    });
}
