//! Threads that share the items of one list.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Items that wait for a thread. Each may hold an open folder, of which a process has a thousand or so.
const WAITING_MAX: usize = 64;

/// Calls `work` with every item that `source` gives, on `jobs` threads, each with a state of its own that `make` makes. After
/// the first error, nothing more is begun.
///
/// # Errors
/// The first of `work` or `source`; the system has no thread left.
pub fn share<T: Send, S>(
    jobs: usize,
    source: impl FnOnce(&mut dyn FnMut(T) -> anyhow::Result<()>) -> anyhow::Result<()>,
    make: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let (send, receive) = sync_channel::<T>(WAITING_MAX);
    let receive = Mutex::new(receive);
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let given = thread::scope(|scope| {
        let run = || {
            let mut state = make();
            // Also when all is over: the source must not wait for room that nobody makes.
            while let Some(item) = next(&receive) {
                if stop.load(Ordering::Relaxed) {
                    continue;
                }
                if let Err(error) = work(&mut state, item) {
                    lock(&failed).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        for _ in 0..jobs.max(1) {
            thread::Builder::new().spawn_scoped(scope, run)?;
        }
        let given = source(&mut |item| {
            if stop.load(Ordering::Relaxed) || send.send(item).is_err() {
                anyhow::bail!("stopped");
            }
            Ok(())
        });
        if given.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        drop(send);
        given
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => given,
    }
}

fn next<T>(receive: &Mutex<std::sync::mpsc::Receiver<T>>) -> Option<T> {
    lock(receive).recv().ok()
}

/// Nothing here is left half done by a panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads to use where nobody says: there is little to gain from more than 4 on one pool, and even one processor
/// can compute while the other thread waits for a device.
pub fn default_jobs() -> usize {
    thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    fn give(count: u64) -> impl FnOnce(&mut dyn FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
        move |give| (1..=count).try_for_each(give)
    }

    #[test]
    fn every_item_is_worked_on_once() {
        for jobs in [0, 1, 3] {
            let sum = AtomicU64::new(0);
            let add = |_: &mut (), item| {
                sum.fetch_add(item, Ordering::Relaxed);
                Ok(())
            };
            share(jobs, give(1000), || (), add).unwrap();
            assert_eq!(sum.into_inner(), 500_500);
        }
    }

    #[test]
    fn an_error_of_either_side_ends_it() {
        // Far more than may wait.
        let fail = |_: &mut (), item| if item == 7 { Err(anyhow::anyhow!("seven")) } else { Ok(()) };
        let error = share(2, give(100_000), || (), fail).unwrap_err();
        assert_eq!(error.to_string(), "seven");
        let source = |give: &mut dyn FnMut(u64) -> anyhow::Result<()>| {
            give(1)?;
            anyhow::bail!("no more")
        };
        let error = share(2, source, || (), |_: &mut (), _| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "no more");
    }
}
