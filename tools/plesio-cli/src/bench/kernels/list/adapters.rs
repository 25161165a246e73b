//! Adapters: forward and backward for a batch, many at once for a batch of decoding, beside a q8 base, and their
//! optimiser.

use super::{Kernel, Made, table};
use crate::bench::kernels::memory::Buffers;
use crate::bench::kernels::plan::{Element, Fill, Must, Plan, Role, Scale};
use bytemuck::{AnyBitPattern, NoUninit};
use plesio_kernels::lora::Gradients;
use plesio_kernels::{AdamW, AdamWState, Adapter, Device, KernelError, Lora, Q8};
use serde_json::json;

pub(super) static KERNELS: &[Kernel] = table! {
    "lora_forward" hot numpy: |scale| forward_plan(small(256, scale)).must(Must::VectorNs(20.0)) => lora_forward;
    "lora_forward" hot numpy: |scale| forward_plan(small(4096, scale)).must(Must::VectorNs(390.0)) => lora_forward;
    "lora_backward" hot numpy: |scale| backward_plan(small(256, scale)) => lora_backward;
    "lora_backward" hot numpy: |scale| backward_plan(small(4096, scale)) => lora_backward;
    "lora_forward_bf16": |scale| forward_plan(large(scale)) => lora_forward_bf16;
    "lora_backward_bf16": |scale| backward_plan(large(scale)) => lora_backward_bf16;
    "lora_grouped": grouped_plan => lora_grouped;
    "product_q8": product_plan => product_q8;
    "adamw" sized numpy: adamw_plan => adamw;
};

/// A batch through an adapter of a square layer.
#[derive(Clone, Copy)]
struct Shape {
    d: usize,
    rank: usize,
    rows: usize,
    element: Element,
}

/// A batch of vectors through an adapter as small as they get.
fn small(d: usize, scale: Scale) -> Shape {
    Shape { d: scale.or(d, 333), rank: RANK_SMALL, rows: scale.or(32, 3), element: Element::F32 }
}

/// A sequence through an adapter of a large model.
fn large(scale: Scale) -> Shape {
    Shape { d: scale.or(4096, 333), rank: RANK, rows: scale.or(4096, 3), element: Element::Bf16 }
}

const RANK_SMALL: usize = 2;
const RANK: usize = 16;
/// Of an adapter's product.
const SCALE: f32 = 0.5;

/// x, A and B; the others follow.
fn lora_plan(shape: Shape) -> Plan {
    let Shape { d, rank, rows, element } = shape;
    let name = if element == Element::F32 { "f32" } else { "bf16" };
    let plan = Plan::new(format!("d={d} r={rank} batch={rows} {name}")).rows(rows);
    let plan = plan.told(json!({ "rank": rank, "rows": rows, "scale": SCALE }));
    plan.read(element, rows * d).read(element, rank * d).read(element, rank * d)
}

/// The adapter of a plan that begins so, and x.
fn lora<'a, E>(buffers: &mut Buffers<'a>, rank: usize) -> Result<(&'a [E], Lora<'a, E>), KernelError>
where
    E: plesio_kernels::Element + AnyBitPattern + NoUninit,
{
    let (x, a, b) = (buffers.read::<E>(), buffers.read::<E>(), buffers.read::<E>());
    let d = a.len() / rank;
    Ok((x, Lora::new(a, b, rank, d, d, SCALE)?))
}

fn forward_plan(shape: Shape) -> Plan {
    let Shape { d, rank, rows, element } = shape;
    lora_plan(shape).write(Element::F32, rows * rank).update(element, rows * d, Fill::Plain)
}

fn lora_forward<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (x, lora) = lora::<f32>(&mut buffers, RANK_SMALL)?;
    let (h, y) = (buffers.write::<f32>(), buffers.write::<f32>());
    Ok(Box::new(move || device.lora_forward(lora, x, h, y)))
}

fn lora_forward_bf16<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (x, lora) = lora::<u16>(&mut buffers, RANK)?;
    let (h, y) = (buffers.write::<f32>(), buffers.write::<u16>());
    Ok(Box::new(move || device.lora_forward_bf16(lora, x, h, y)))
}

fn backward_plan(shape: Shape) -> Plan {
    let Shape { d, rank, rows, element } = shape;
    let plan = lora_plan(shape).update(Element::F32, rows * rank, Fill::Plain).read(element, rows * d);
    let plan = plan.update(Element::F32, rank * d, Fill::Zero).update(Element::F32, rank * d, Fill::Zero);
    plan.update(element, rows * d, Fill::Zero)
}

fn lora_backward<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (x, lora) = lora::<f32>(&mut buffers, RANK_SMALL)?;
    let (h, g, mut gradients) = backward_buffers::<f32>(&mut buffers);
    Ok(Box::new(move || device.lora_backward(lora, x, g, h, again(&mut gradients))))
}

fn lora_backward_bf16<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (x, lora) = lora::<u16>(&mut buffers, RANK)?;
    let (h, g, mut gradients) = backward_buffers::<u16>(&mut buffers);
    Ok(Box::new(move || device.lora_backward_bf16(lora, x, g, h, again(&mut gradients))))
}

/// h, dL/dy, and where the gradients go.
fn backward_buffers<'a, E>(buffers: &mut Buffers<'a>) -> (&'a mut [f32], &'a [E], Gradients<'a, E>)
where
    E: AnyBitPattern + NoUninit,
{
    let (h, g) = (buffers.write::<f32>(), buffers.read::<E>());
    let (a, b) = (buffers.write::<f32>(), buffers.write::<f32>());
    (h, g, Gradients { a, b, x: Some(buffers.write::<E>()) })
}

/// The same for one call.
fn again<'b, E>(gradients: &'b mut Gradients<'_, E>) -> Gradients<'b, E> {
    let Gradients { a, b, x } = gradients;
    Gradients { a, b, x: x.as_deref_mut() }
}

/// A token each of so many sequences, each with an adapter of its own.
fn grouped_plan(scale: Scale) -> Plan {
    let (d, rows) = (scale.or(4096, 333), scale.or(32, 5));
    let plan = Plan::new(format!("d={d} r={RANK} adapters={rows} batch={rows} bf16")).rows(rows);
    let plan = plan.read(Element::Bf16, rows * d);
    let plan = plan.read(Element::Bf16, rows * RANK * d).read(Element::Bf16, rows * RANK * d);
    plan.update(Element::Bf16, rows * d, Fill::Plain).with(Role::Read, Element::U32, rows, Fill::Index)
}

fn lora_grouped<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (x, a, b) = (buffers.read::<u16>(), buffers.read::<u16>(), buffers.read::<u16>());
    let (y, which) = (buffers.write::<u16>(), buffers.read::<u32>());
    let d = x.len() / which.len();
    let pairs = a.chunks_exact(RANK * d).zip(b.chunks_exact(RANK * d));
    let adapters =
        pairs.map(|(a, b)| Adapter::new(a, b, RANK, d, d, SCALE)).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move || device.lora_grouped(&adapters, which, x, y)))
}

/// A token through a q8 layer and its adapter.
fn product_plan(scale: Scale) -> Plan {
    let d = scale.or(4096, 96);
    let plan = Plan::new(format!("d={d} r={RANK} batch=1 q8")).read(Element::I8, d * d);
    let plan = plan.reads(1, Element::F16, d * d / 32, Fill::Positive).read(Element::Bf16, d);
    plan.read(Element::Bf16, RANK * d).read(Element::Bf16, RANK * d).write(Element::F32, d)
}

fn product_q8<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let weights = Q8::new(buffers.read(), buffers.read())?;
    let (x, lora) = lora::<u16>(&mut buffers, RANK)?;
    let y = buffers.write::<f32>();
    Ok(Box::new(move || device.product_q8(weights, x, Some(lora), y)))
}

/// A step at which the corrections of the moments matter.
const STEP: u32 = 10;

fn adamw_plan(scale: Scale) -> Plan {
    let (n, settings) = (scale.elements(4), AdamW::default());
    let plan = Plan::new(format!("n={n} f32")).read(Element::F32, n).update(Element::F32, n, Fill::Plain);
    let plan = plan.update(Element::F32, n, Fill::Positive).update(Element::F32, n, Fill::Plain);
    plan.told(json!({
        "learning_rate": settings.learning_rate,
        "beta1": settings.beta1,
        "beta2": settings.beta2,
        "epsilon": settings.epsilon,
        "step": STEP,
    }))
}

fn adamw<D: Device>(device: D, mut buffers: Buffers<'_>) -> Made<'_> {
    let (gradient, mean) = (buffers.read::<f32>(), buffers.write::<f32>());
    let (variance, params) = (buffers.write::<f32>(), buffers.write::<f32>());
    Ok(Box::new(move || {
        let state = AdamWState { mean: &mut *mean, variance: &mut *variance, step: STEP };
        device.adamw(AdamW::default(), state, 1.0, gradient, params);
        Ok(())
    }))
}
