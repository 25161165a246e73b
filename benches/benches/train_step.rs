//! The demo's LoRA training step and its loss alone on one core: rank 8, 8 x 128 bytes, f32. Criterion reports
//! tokens/s.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plesio_cpu::{Cpu, Level};
use plesio_kernels::Device;
use plesio_model::{Base, Config, Sampler, TrainConfig, Trainer};
use std::hint::black_box;
use std::sync::Arc;

fn train_step(criterion: &mut Criterion) {
    let base = Arc::new(Base::random(Config::default(), 1).expect("the default shape is valid"));
    let text: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut group = criterion.benchmark_group("lora_train_step");
    group.sample_size(20);
    for level in [Level::Avx512, Level::Avx2, Level::Neon] {
        let Some(cpu) = Cpu::with_level(level) else { continue };
        let config = TrainConfig::default();
        group.throughput(Throughput::Elements((config.batch * config.context) as u64));
        let mut trainer =
            Trainer::new(cpu, Arc::clone(&base), config).expect("the default settings are valid");
        let mut tokens = vec![0; trainer.batch_bytes()];
        Sampler::new(1).fill(&text, 128, &mut tokens).expect("the text is long enough");
        group.bench_function(cpu.name(), |bencher| {
            bencher.iter(|| black_box(trainer.step(&tokens).expect("finite")));
        });
        group.bench_function(format!("{}/loss", cpu.name()), |bencher| {
            bencher.iter(|| black_box(trainer.loss(&tokens).expect("finite")));
        });
    }
    group.finish();
}

criterion_group!(benches, train_step);
criterion_main!(benches);
