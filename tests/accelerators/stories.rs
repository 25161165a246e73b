//! What is told in a process with the fake libraries: each story is a use of one device through the seam, the same
//! for both vendors.

use std::mem::forget;
use std::time::{Duration, Instant};

use plesio_launch::{Discovery, Fault, Runtime, RuntimeError, Vendor};

use crate::bench::{Bench, KERNEL, THREADS, fault, image};
use crate::images;

/// Opens a device by its number.
pub(crate) type Open<R> = fn(u32) -> Result<R, RuntimeError>;

/// Tells a story by its name; what it prints is for the test that asked.
pub(crate) fn tell<R: Runtime>(story: &str, open: Open<R>, discover: fn() -> Discovery) {
    match story {
        "look" => look(discover),
        "refused" => println!("{}", open(0).expect_err("the device refuses")),
        "work" => work(&open(0).expect("a device")),
        "threads" => threads(&open(0).expect("a device")),
        "devices" => devices(open),
        "images" => images_of(&open(0).expect("a device")),
        "chips" => chips(&open(0).expect("a device")),
        "memory" => memory(&open(0).expect("a device")),
        "no registration" => no_registration(&open(0).expect("a device")),
        "hang" => forget(hang(&open(0).expect("a device"))),
        "wait" => drop(hang(&open(0).expect("a device")).module),
        "lost" => lost(&open(0).expect("a device")),
        "leave" => leave(&open(0).expect("a device")),
        "misuse" => misuse(&open(0).expect("a device")),
        other => panic!("there is no story {other}"),
    }
}

fn look(discover: fn() -> Discovery) {
    let begin = Instant::now();
    let found = discover();
    println!("took {} us", begin.elapsed().as_micros());
    for chip in &found.chips {
        println!("chip: {chip}; {chip:?}");
    }
    for remark in &found.remarks {
        println!("remark: {remark}");
    }
    assert_eq!(discover(), found, "looking again finds the same");
}

const COUNT: usize = 1000; // no multiple of a block

fn rising() -> Vec<f32> {
    (0..COUNT).map(|index| index as f32).collect()
}

fn times(factor: f32) -> Vec<f32> {
    rising().iter().map(|x| x * factor).collect()
}

/// Every method, with what the kernel makes of the numbers.
fn work<R: Runtime>(runtime: &R) {
    let bench = Bench::new(runtime);
    let (begin, end) = (runtime.event().expect("an event"), runtime.event().expect("an event"));
    assert_eq!(runtime.is_done(&begin), Ok(true), "nothing was recorded");
    assert!(runtime.elapsed_ns(&begin, &end).is_err(), "no time was taken");

    let (x, out) = (bench.put(&rising()), bench.put(&[f32::NAN; COUNT]));
    bench.fill(out, 0).expect("the range is the device's");
    runtime.record(&begin, &bench.stream).expect("both live");
    bench.scale(x, 2.0, out).expect("a launch");
    runtime.record(&end, &bench.stream).expect("both live");
    bench.wait().expect("the device works");
    assert_eq!(bench.get(out), times(2.0));
    let took_ns = runtime.elapsed_ns(&begin, &end).expect("both are done");
    assert!(took_ns < 60_000_000_000, "{took_ns}");

    // Recorded, so not done; then done as often as it is submitted.
    runtime.begin_capture(&bench.stream).expect("the stream lives");
    bench.fill(out, 0).expect("recorded");
    bench.scale(x, 3.0, out).expect("recorded");
    bench.scale(x, 3.0, out).expect("recorded");
    let graph = runtime.end_capture(&bench.stream).expect("it was begun");
    assert_eq!(bench.get(out), times(2.0));
    for _ in 0..3 {
        bench.replay(&graph).expect("everything is still there");
    }
    assert_eq!(bench.get(out), times(6.0));
    assert!(runtime.end_capture(&bench.stream).is_err(), "it was not begun");

    // Memory of the host that the device uses in place: the driver's, which is zeroed, and ours.
    let (base, shared) = bench.shared(COUNT);
    assert_eq!(Bench::<R>::seen(base, shared), [0.0; COUNT]);
    bench.scale(x, 4.0, shared).expect("a launch");
    bench.wait().expect("the device works");
    assert_eq!(Bench::<R>::seen(base, shared), times(4.0));
    bench.free_shared(base);
    let mut ours = vec![1.0; COUNT];
    let lent = bench.lend(&mut ours, |ours| {
        bench.scale(x, 1.0, ours).expect("a launch");
        bench.wait().expect("the device works");
    });
    lent.expect("the device takes it");
    let expected: Vec<f32> = rising().iter().map(|x| x + 1.0).collect();
    assert_eq!(ours, expected);
    bench.free(x);
    bench.free(out);
}

/// Streams of their own, on threads of their own, through one value.
fn threads<R: Runtime>(runtime: &R) {
    let image = image(runtime.chip().vendor);
    std::thread::scope(|scope| {
        for thread in 1..=4 {
            let image = &image;
            scope.spawn(move || {
                let bench = Bench::new(runtime);
                for turn in 1..=8 {
                    let factor = (thread * turn) as f32;
                    let (x, out) = (bench.put(&rising()), bench.put(&[0.0; COUNT]));
                    bench.scale(x, factor, out).expect("a launch");
                    assert_eq!(bench.get(out), times(factor), "thread {thread}, turn {turn}");
                    bench.free(x);
                    bench.free(out);
                    runtime.load(image).expect("while others work");
                }
            });
        }
    });
}

/// Two devices in one thread, by turns; what is of one is refused by the other.
fn devices<R: Runtime>(open: Open<R>) {
    let (first, second) = (open(0).expect("the first"), open(1).expect("the second"));
    assert_eq!((first.chip().ordinal, second.chip().ordinal), (0, 1));
    assert!(open(2).is_err() && open(u32::MAX).is_err(), "there are two");
    let (here, there) = (Bench::new(&first), Bench::new(&second));
    for bench in [&here, &there, &here] {
        let (x, out) = (bench.put(&rising()), bench.put(&[0.0; COUNT]));
        bench.scale(x, 2.0, out).expect("a launch");
        assert_eq!(bench.get(out), times(2.0));
        bench.free(x);
        bench.free(out);
    }
    let event = first.event().expect("an event");
    assert_eq!(fault(second.record(&event, &there.stream)), Fault::Other, "an event of the other device");
}

/// Images that are not for anybody, and names that an image has not.
fn images_of<R: Runtime>(runtime: &R) {
    let good = image(runtime.chip().vendor);
    let module = runtime.load(&good).expect("it is for this chip");
    assert_eq!(fault(runtime.function(&module, c"plesio_missing")), Fault::Missing);
    assert_eq!(
        fault(runtime.function(&module, c"plesio_commented")),
        Fault::Missing,
        "a comment is no kernel"
    );
    assert_eq!(fault(runtime.function(&module, c"")), Fault::Missing);
    let whole = match runtime.chip().vendor {
        Vendor::Nvidia => images::cubin(87, false, &[KERNEL]),
        Vendor::Amd => good.clone(),
    };
    let shapes: [&[u8]; 5] = [b"", b"\0", b"\x7fELF", &whole[..whole.len() - 1], b"\xff\xff\xff\xff"];
    for bad in shapes {
        let error = runtime.load(bad).expect_err("no image");
        assert_eq!(error.fault, Fault::Image, "{error}");
    }
    let (wrong, known): (&[(Vec<u8>, &str)], _) = match runtime.chip().vendor {
        Vendor::Nvidia => (
            &[
                (images::ptx("8.5", "sm_75", &[KERNEL]), "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
                (images::ptx("7.0", "sm_90", &[KERNEL]), "CUDA_ERROR_INVALID_PTX"),
                (b".version 7.0\n.target sm_75\n{".to_vec(), "CUDA_ERROR_INVALID_PTX"),
                (b"something else".to_vec(), "CUDA_ERROR_INVALID_IMAGE"),
                (images::cubin(90, false, &[KERNEL]), "CUDA_ERROR_NO_BINARY_FOR_GPU"),
                (images::code_object(0x4c, &[KERNEL]), "CUDA_ERROR_INVALID_IMAGE"),
            ],
            [whole, images::cubin(80, true, &[KERNEL])],
        ),
        Vendor::Amd => (
            &[
                (images::code_object(0x3f, &[KERNEL]), "hipErrorNoBinaryForGpu"),
                (images::cubin(90, false, &[KERNEL]), "hipErrorInvalidImage"),
                (images::ptx("7.0", "sm_75", &[KERNEL]), "hipErrorInvalidImage"),
            ],
            [whole, images::code_object(0x4c, &["plesio_other", KERNEL])],
        ),
    };
    for (image, name) in wrong {
        let error = runtime.load(image).expect_err(name);
        assert_eq!((error.name.as_str(), error.fault), (*name, Fault::Image), "{error}");
        println!("{error}");
    }
    for image in known {
        let module = runtime.load(&image).expect("for this chip, or an earlier one of its kind");
        runtime.function(&module, c"plesio_test_scale").expect("the image has it");
    }
}

/// An image that the environment says this chip takes.
fn chips<R: Runtime>(runtime: &R) {
    let image = match runtime.chip().architecture.as_str() {
        "gfx1151" => images::code_object(0x4a, &[KERNEL]),
        "sm_110" => images::cubin(110, true, &[KERNEL]),
        other => panic!("{other} is no chip of this story"),
    };
    let module = runtime.load(&image).expect("for this chip");
    runtime.function(&module, c"plesio_test_scale").expect("the image has it");
    println!("warp of {}, integrated {}", runtime.chip().warp_threads, runtime.chip().integrated);
}

/// 64 KiB in all, and the third allocation fails.
fn memory<R: Runtime>(runtime: &R) {
    assert!(runtime.allocate(0).is_err() && runtime.allocate_host(0).is_err(), "no bytes");
    let bench = Bench::new(runtime);
    let numbers = bench.put(&rising());
    assert_eq!(fault(runtime.allocate(1 << 16)), Fault::Memory, "more than there is");
    assert_eq!(fault(runtime.allocate(usize::MAX)), Fault::Memory);
    assert_eq!(fault(bench.get_beyond(numbers)), Fault::Other, "beyond the end");
    assert_eq!(fault(runtime.allocate_host(4)), Fault::Memory, "the one that is to fail");
    let (base, _) = bench.shared(1);
    bench.free_shared(base);
    bench.free(numbers);

    assert_eq!(bench.lend_nothing().fault, Fault::Other);
    let mut ours = vec![0.0; COUNT];
    let error = bench.lend(&mut ours, |_| {
        let mut again = vec![0.0; 1];
        bench.lend(&mut again, |_| ()).expect("other memory");
    });
    error.expect("the device takes it");
    bench.lend(&mut ours, |_| ()).expect("it was given back");
}

fn no_registration<R: Runtime>(runtime: &R) {
    let bench = Bench::new(runtime);
    assert_eq!(fault(bench.lend(&mut [0.0; COUNT], |_| ())), Fault::Other);
    let (base, numbers) = bench.shared(COUNT);
    bench.fill(numbers, 0).expect("the driver's own memory is another matter");
    bench.wait().expect("the device works");
    bench.free_shared(base);
}

/// The second launch never ends: its stream stands, and another one works. What it uses must be forgotten.
fn hang<R: Runtime>(runtime: &R) -> Bench<'_, R> {
    let (bench, other) = (Bench::new(runtime), Bench::new(runtime));
    let (x, out) = (bench.put(&rising()), bench.put(&[0.0; COUNT]));
    bench.scale(x, 2.0, out).expect("a launch");
    bench.wait().expect("the first ends");
    bench.scale(x, 2.0, out).expect("a launch");
    let event = runtime.event().expect("an event");
    runtime.record(&event, &bench.stream).expect("both live");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(200) {
        assert_eq!(runtime.is_done(&event), Ok(false));
        std::thread::sleep(Duration::from_millis(5));
    }
    other.fill(x, 0).expect("another stream works");
    other.wait().expect("another stream works");
    forget(other);
    bench
}

/// The second launch loses the device: everything says so from then on, and nothing panics.
fn lost<R: Runtime>(runtime: &R) {
    let bench = Bench::new(runtime);
    let (x, out) = (bench.put(&rising()), bench.put(&[0.0; COUNT]));
    let (base, _shared) = bench.shared(COUNT);
    let event = runtime.event().expect("an event");
    runtime.begin_capture(&bench.stream).expect("the stream lives");
    bench.scale(x, 1.0, out).expect("recorded");
    let graph = runtime.end_capture(&bench.stream).expect("it was begun");
    bench.scale(x, 2.0, out).expect("a launch");
    bench.wait().expect("the first ends");
    bench.scale(x, 2.0, out).expect("nothing is wrong yet");
    let begin = Instant::now();
    let error = loop {
        assert!(begin.elapsed() < Duration::from_secs(60), "the device lives on");
        match bench.wait() {
            Ok(()) => continue,
            Err(error) => break error,
        }
    };
    println!("{error}");
    let faults = [
        error.fault,
        fault(runtime.load(&image(runtime.chip().vendor))),
        fault(runtime.function(&bench.module, c"plesio_test_scale")),
        fault(runtime.stream()),
        fault(runtime.event()),
        fault(runtime.record(&event, &bench.stream)),
        fault(runtime.is_done(&event)),
        fault(runtime.elapsed_ns(&event, &event)),
        fault(runtime.allocate(4)),
        fault(runtime.allocate_host(4)),
        fault(bench.lend(&mut [0.0], |_| ())),
        fault(bench.fill(out, 0)),
        fault(bench.get_beyond(out)),
        fault(bench.scale(x, 1.0, out)),
        fault(runtime.begin_capture(&bench.stream)),
        fault(runtime.end_capture(&bench.stream)),
        fault(bench.replay(&graph)),
    ];
    assert_eq!(faults, [Fault::Lost; 17]);
    bench.free(x);
    bench.free(out);
    bench.free_shared(base);
}

/// Gives nothing back: whoever tests with the fakes must hear of it.
fn leave<R: Runtime>(runtime: &R) {
    let bench = Bench::new(runtime);
    let _numbers = bench.put(&rising());
    forget(runtime.event().expect("an event"));
    forget(runtime.load(&image(runtime.chip().vendor)).expect("for this chip"));
}

/// A launch that no kernel was built for ends the device, as an illegal one does.
fn misuse<R: Runtime>(runtime: &R) {
    let bench = Bench::new(runtime);
    let (x, out) = (bench.put(&rising()), bench.put(&[0.0; COUNT]));
    for (blocks, threads) in [(0, THREADS), (1, 0), (1, 1025)] {
        assert_eq!(fault(bench.scale_by(blocks, threads, x, 1.0, out)), Fault::Other, "{blocks} x {threads}");
    }
    assert_eq!(bench.get(out), [0.0; COUNT], "the device lives on");
    bench.scale_by(1, THREADS / 2, x, 1.0, out).expect("nothing is wrong yet");
    let begin = Instant::now();
    while bench.wait().is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the device lives on");
    }
    assert_eq!(fault(bench.wait()), Fault::Lost);
}
