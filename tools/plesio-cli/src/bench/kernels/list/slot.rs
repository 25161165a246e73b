//! Slots: their sum, the commit, and the codecs they travel in.

use super::{Kernel, Made, table};
use crate::bench::kernels::memory::Buffers;
use crate::bench::kernels::plan::{Element, Fill, Must, Plan, Scale};
use plesio_kernels::{Codec, Coding, Device};
use serde_json::json;

pub(super) static KERNELS: &[Kernel] = table! {
    "slot_sum" sized numpy: |scale| slots(scale).write(Element::I64, scale.elements(4)) => slot_sum;
    "commit" sized numpy: |scale| slots(scale).update(Element::I64, scale.elements(4), Fill::Zero) => commit;
    "encode_int8" sized: encode_int8_plan => encode_int8;
    "coded_sum_int8" sized: coded_sum_plan => coded_sum;
};

/// Contributions of a sum.
const K: usize = 8;
const WEIGHTS: [u32; K] = [3, 4, 5, 6, 7, 8, 9, 10];

fn slots(scale: Scale) -> Plan {
    let n = scale.elements(4);
    let plan = Plan::new(format!("k={K} n={n} i32")).told(json!({ "weights": WEIGHTS }));
    plan.reads(K, Element::I32, n, Fill::Plain).must(Must::OfFloor(0.9))
}

fn slot_sum<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (slots, sum) = (buffers.reads::<i32>(K), buffers.write::<i64>());
    Ok(Box::new(move || device.slot_sum(&WEIGHTS, &slots, sum)))
}

fn commit<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (slots, master) = (buffers.reads::<i32>(K), buffers.write::<i64>());
    Ok(Box::new(move || device.commit(&WEIGHTS, &slots, master)))
}

fn encode_int8_plan(scale: Scale) -> Plan {
    let n = scale.elements(4);
    let plan = Plan::new(format!("n={n} f32")).read(Element::F32, n).update(Element::F32, n, Fill::Zero);
    plan.write(Element::U8, Codec::Int8.encoded_bytes(n))
}

fn encode_int8<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (input, residue, codes) = (buffers.read::<f32>(), buffers.write::<f32>(), buffers.write::<u8>());
    let coding = Coding::new(Codec::Int8, 1);
    Ok(Box::new(move || device.encode(coding, input, Some(&mut *residue), codes).map(drop)))
}

fn coded_sum_plan(scale: Scale) -> Plan {
    let n = scale.elements(4);
    let plan = Plan::new(format!("k={K} n={n} int8"));
    let plan = plan.reads(K, Element::U8, Codec::Int8.encoded_bytes(n), Fill::Coded(Codec::Int8, n));
    plan.write(Element::I64, n)
}

fn coded_sum<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (slots, sum) = (buffers.reads::<u8>(K), buffers.write::<i64>());
    Ok(Box::new(move || device.coded_sum(Codec::Int8, &WEIGHTS, &slots, sum)))
}
