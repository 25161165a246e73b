//! What the mesh was worth: the base, the mesh's adapter, and every survivor trained alone.
//!
//! All are judged on the same text: a mix of what every member held out, in equal parts. A member alone takes
//! exactly as many steps as it took in the mesh, on the same batches in the same order.

use super::data;
use super::plan::Plan;
use super::record::{Record, Seen};
use super::train::{self, Student};
use crate::failure::Failure;
use plesio::AnyDevice;
use plesio_model::{Base, ModelError, PeftFiles, Trainer};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// Held-out bytes judged per member; fewer when there are many members.
const JUDGED_BYTES_MAX: usize = 4 << 10;
const JUDGED_BYTES_TOTAL: usize = 24 << 10;
/// A run alone keeps one loss in so many for its curve.
const CURVE_EVERY: u64 = 4;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Mean held-out losses in nats per byte. A loss that could not be had is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    pub(crate) base: Option<f64>,
    pub(crate) mesh: Option<f64>,
    /// Members alive at the end, in the order of the record.
    pub(crate) alone: Vec<Alone>,
}

/// One member without the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    pub(crate) name: String,
    pub(crate) steps: u64,
    pub(crate) loss: Option<f64>,
    /// (step, training loss).
    pub(crate) curve: Vec<(u64, f32)>,
}

/// Whether to end early, and how far the threads have come.
struct Course<'a> {
    stop: &'a AtomicBool,
    steps: AtomicU64,
}

enum Job {
    Base,
    Mesh(Vec<f32>),
    Alone { index: usize, name: String, steps: u64 },
}

/// Judges base, mesh and every survivor alone on `threads` threads; stops early when `stop` is set. `progress`
/// hears of the steps done, and of how many, a few times per second.
pub(crate) fn losses(
    base: &Arc<Base>,
    plan: &Plan,
    record: &Record,
    threads: usize,
    stop: &AtomicBool,
    mut progress: impl FnMut(u64, u64),
) -> Result<Losses, Failure> {
    let mut jobs = vec![Job::Base];
    jobs.extend(mesh_state(record).map(|state| Job::Mesh(state.to_vec())));
    let course = Course { stop, steps: AtomicU64::new(0) };
    let took_part = |node: &Seen| node.last.is_some() && node.attached.is_some();
    let survivors = record.nodes.iter().enumerate().filter(|(_, node)| took_part(node));
    jobs.extend(survivors.map(|(index, node)| Job::Alone {
        index,
        name: node.name.clone(),
        steps: node.steps,
    }));
    // The longest first: threads pop from the end, so that none is left alone with a long one.
    jobs.sort_by_key(|job| if let Job::Alone { steps, .. } = job { *steps } else { 0 });
    let steps_all = jobs.iter().map(|job| if let Job::Alone { steps, .. } = job { *steps } else { 0 }).sum();
    let queue = Mutex::new(jobs);
    let found = Mutex::new((Losses::default(), Vec::new()));
    let judged = judged_text(plan);
    let work = || -> Result<(), ModelError> {
        while let Some(job) = lock(&queue).pop() {
            if course.stop.load(Ordering::Relaxed) {
                break;
            }
            do_job(base, plan, &judged, job, &course, &found)?;
        }
        Ok(())
    };
    let failed = |error| Failure::run("evaluate", "cannot judge the adapters", error);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..threads.max(1) {
            match std::thread::Builder::new().name("judge".into()).spawn_scoped(scope, work) {
                Ok(worker) => workers.push(worker),
                Err(cause) if workers.is_empty() => {
                    return Err(Failure::thread("evaluate", cause));
                }
                // Those there are do all of it.
                Err(_) => break,
            }
        }
        while !workers.iter().all(ScopedJoinHandle::is_finished) {
            std::thread::sleep(PROGRESS_EVERY);
            progress(course.steps.load(Ordering::Relaxed), steps_all);
        }
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(outcome) => outcome.map_err(failed),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let (mut losses, mut alone) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    alone.sort_by_key(|(index, _)| *index);
    losses.alone = alone.into_iter().map(|(_, alone)| alone).collect();
    Ok(losses)
}

/// The mesh's adapter as files that PEFT reads.
pub(crate) fn export(base: &Arc<Base>, plan: &Plan, record: &Record) -> Result<Option<PeftFiles>, Failure> {
    let Some(state) = mesh_state(record) else { return Ok(None) };
    let files =
        train::moved(base, plan.adapter_seed, state).and_then(|trainer| trainer.export(data::BASE_NAME));
    files.map(Some).map_err(|error| Failure::run("export", "cannot export the adapter", error))
}

/// How far the mesh has moved the adapter: any survivor's word, since all are the same or a check fails.
fn mesh_state(record: &Record) -> Option<&[f32]> {
    record.nodes.iter().find_map(|node| node.state.as_deref())
}

type Found = Mutex<(Losses, Vec<(usize, Alone)>)>;

fn do_job(
    base: &Arc<Base>,
    plan: &Plan,
    judged: &[Vec<u8>],
    job: Job,
    course: &Course<'_>,
    found: &Found,
) -> Result<(), ModelError> {
    match job {
        Job::Base => {
            let loss = judge(&mut train::trainer(AnyDevice::default(), base, plan.adapter_seed)?, judged)?;
            lock(found).0.base = Some(loss);
        }
        Job::Mesh(state) => {
            let loss = judge(&mut train::moved(base, plan.adapter_seed, &state)?, judged)?;
            lock(found).0.mesh = Some(loss);
        }
        Job::Alone { index, name, steps } => {
            let work = plan.members[index].work;
            let mut student = Student::new(
                AnyDevice::default(),
                base,
                plan.adapter_seed,
                data::split(work).train,
                work.sampler_seed,
            )?;
            let mut alone = Alone { name, steps, loss: None, curve: Vec::new() };
            let mut done = 0;
            while done < steps && !course.stop.load(Ordering::Relaxed) {
                done += 1;
                course.steps.fetch_add(1, Ordering::Relaxed);
                let loss = student.step()?;
                if done % CURVE_EVERY == 1 {
                    alone.curve.push((done, loss));
                }
            }
            if done == steps {
                alone.loss = Some(judge(&mut student.into_trainer(), judged)?);
            }
            lock(found).1.push((index, alone));
        }
    }
    Ok(())
}

fn judge(trainer: &mut Trainer<AnyDevice>, judged: &[Vec<u8>]) -> Result<f64, ModelError> {
    let mut sum = 0.0;
    for text in judged {
        sum += trainer.evaluate(text)?;
    }
    Ok(sum / judged.len() as f64)
}

/// The same number of held-out bytes of every member's text.
fn judged_text(plan: &Plan) -> Vec<Vec<u8>> {
    let bytes = (JUDGED_BYTES_TOTAL / plan.members.len()).min(JUDGED_BYTES_MAX);
    let held_out = plan.members.iter().map(|member| data::split(member.work).held_out);
    held_out
        .map(|mut text| {
            text.truncate(bytes + 1);
            text
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
