//! Locks, atomics and threads: those of parking_lot and the standard library, or those of a scheduler of tests.
//!
//! With the feature `shuttle` they are those of [shuttle](https://docs.rs/shuttle), which runs one thread at a time and
//! decides at every lock, atomic access and wait who goes on. Its tests (names with `shuttle`) then try thousands of
//! orders, and repeat one that failed. Nothing else runs with that feature.
//!
//! What is not imported from here is one step to that scheduler: `arc_swap`, counters of statistics, the leaf locks of
//! devices and buffers. Nothing from here may be used while one of those locks is held.

#[cfg(not(feature = "shuttle"))]
pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(feature = "shuttle"))]
pub use std::{sync::atomic, thread};

#[cfg(feature = "shuttle")]
pub use scheduled::{Condvar, Mutex, MutexGuard, RwLock, atomic, thread};

#[cfg(feature = "shuttle")]
mod scheduled {
    pub use shuttle::sync::atomic;
    pub use shuttle_parking_lot::{Mutex, MutexGuard, RwLock};
    use std::time::Duration;

    pub mod thread {
        //! Threads whose order the scheduler decides.

        pub use shuttle::thread::{Builder, JoinHandle, current, spawn, yield_now};
        use std::io;
        use std::num::NonZero;
        use std::time::Duration;

        /// Time means nothing to the scheduler: others may go on meanwhile, or not.
        pub fn sleep(_duration: Duration) {
            yield_now();
        }

        /// As many as it takes for threads to meet.
        ///
        /// # Errors
        /// None.
        pub fn available_parallelism() -> io::Result<NonZero<usize>> {
            Ok(NonZero::<usize>::MIN.saturating_add(1))
        }
    }

    /// A condition that is waited for with a [`MutexGuard`], as that of parking_lot.
    #[derive(Debug, Default)]
    pub struct Condvar {
        /// Held from before the waiter's lock is given back until it waits: no wake-up is lost between the two.
        gate: shuttle::sync::Mutex<()>,
        wakeups: shuttle::sync::Condvar,
    }

    impl Condvar {
        /// A condition that nobody waits for.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Gives the lock back until the next wake-up.
        pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
            let Ok(gate) = self.gate.lock() else { return };
            MutexGuard::unlocked(guard, || drop(self.wakeups.wait(gate)));
        }

        /// Gives the lock back for as short as a wait may be: to this scheduler every timeout is over at once.
        pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, _timeout: Duration) {
            MutexGuard::unlocked(guard, thread::yield_now);
        }

        /// Wakes one waiter.
        pub fn notify_one(&self) {
            let _gate = self.gate.lock();
            self.wakeups.notify_one();
        }

        /// Wakes all waiters.
        pub fn notify_all(&self) {
            let _gate = self.gate.lock();
            self.wakeups.notify_all();
        }
    }
}
