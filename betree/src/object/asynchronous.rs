//! Futures: what a store does, done on a few threads of its own, for callers that must not wait.
//!
//! They are those of the standard library and need no runtime: any executor may poll them.

use super::handle::ObjectHandle;
use super::info::ObjectInfo;
use super::store::ObjectStore;
use crate::base::sync::thread::{self, JoinHandle};
use crate::base::sync::{Condvar, Mutex};
use crate::database::{Error, Result};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// An object store whose calls return at once, with futures. Cloning is cheap; dropping the last clone waits for what was
/// begun.
#[derive(Debug, Clone)]
pub struct AsyncObjectStore {
    store: ObjectStore,
    pool: Arc<Pool>,
}

/// The result of a call, to come. The call is made whether or not anybody waits for it: dropping this cancels nothing.
#[derive(Debug)]
#[must_use = "a future says what became of the call when it is polled"]
pub struct Pending<T> {
    shared: Arc<Mutex<Slot<T>>>,
}

#[derive(Debug)]
enum Slot<T> {
    /// Whoever polled last is woken.
    Waiting(Option<Waker>),
    Done(Result<T>),
    Taken,
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let mut slot = self.shared.lock();
        match &mut *slot {
            Slot::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Slot::Done(_) => match std::mem::replace(&mut *slot, Slot::Taken) {
                Slot::Done(result) => Poll::Ready(result),
                _ => Poll::Ready(Err(Error::Closed)),
            },
            // Polled again after the end.
            Slot::Taken => Poll::Ready(Err(Error::Closed)),
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    state: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closing: bool,
}

/// Threads that make calls in the order in which they were asked for.
struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut state = self.state.lock();
            let job = loop {
                match state.jobs.pop_front() {
                    Some(job) => break job,
                    None if state.closing => return,
                    None => self.work.wait(&mut state),
                }
            };
            drop(state);
            job();
        }
    }
}

impl Pool {
    fn start(threads: usize) -> Result<Self> {
        let mut pool = Self { shared: Arc::default(), workers: Vec::new() };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let name = format!("betree-async-{number}");
            let worker = thread::Builder::new().name(name).spawn(move || shared.run());
            pool.workers.push(worker.map_err(|error| Error::InvalidArgument {
                what: "threads",
                reason: format!("the operating system refuses one: {error}"),
            })?);
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // The last owner may be a call that one of them makes; its thread ends by itself.
            if worker.thread().id() != thread::current().id() && worker.join().is_err() {
                log::error!("a thread for asynchronous calls panicked");
            }
        }
    }
}

impl ObjectStore {
    /// This store, for callers that must not wait: its calls are made on `threads` threads, at least one.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn asynchronous(&self, threads: usize) -> Result<AsyncObjectStore> {
        Ok(AsyncObjectStore { store: self.clone(), pool: Arc::new(Pool::start(threads)?) })
    }
}

impl AsyncObjectStore {
    /// The store, for callers that may wait.
    #[must_use]
    pub fn store(&self) -> &ObjectStore {
        &self.store
    }

    /// Makes any call, in its turn.
    pub fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&ObjectStore) -> Result<T> + Send + 'static,
    ) -> Pending<T> {
        let shared = Arc::new(Mutex::new(Slot::Waiting(None)));
        let (slot, store) = (Arc::clone(&shared), self.store.clone());
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(|| call(&store))).unwrap_or_else(|_| {
                let reason = String::from("it panicked");
                Err(Error::InvalidArgument { what: "asynchronous call", reason })
            });
            // Before anybody is woken who may want to close the database.
            drop(store);
            let before = std::mem::replace(&mut *slot.lock(), Slot::Done(result));
            if let Slot::Waiting(Some(waker)) = before {
                waker.wake();
            }
        };
        self.pool.shared.state.lock().jobs.push_back(Box::new(job));
        self.pool.shared.work.notify_one();
        Pending { shared }
    }

    /// As [`ObjectStore::put`].
    pub fn put(&self, name: impl AsRef<[u8]>, bytes: impl Into<Vec<u8>>) -> Pending<ObjectInfo> {
        let (name, bytes) = (name.as_ref().to_vec(), bytes.into());
        self.call(move |store| store.put(name, bytes))
    }

    /// As [`ObjectStore::get`].
    pub fn get(&self, name: impl AsRef<[u8]>) -> Pending<Option<Vec<u8>>> {
        let name = name.as_ref().to_vec();
        self.call(move |store| store.get(name))
    }

    /// As [`ObjectHandle::read_at`]: up to `length` bytes from `offset` on.
    pub fn read_at(&self, object: &ObjectHandle, offset: u64, length: usize) -> Pending<Vec<u8>> {
        let object = object.clone();
        self.call(move |_| {
            let left = object.size()?.saturating_sub(offset);
            let mut bytes = vec![0; length.min(usize::try_from(left).unwrap_or(usize::MAX))];
            let read = object.read_at(&mut bytes, offset)?;
            bytes.truncate(read);
            Ok(bytes)
        })
    }

    /// As [`ObjectHandle::write_at`].
    pub fn write_at(&self, object: &ObjectHandle, bytes: impl Into<Vec<u8>>, offset: u64) -> Pending<usize> {
        let (object, bytes) = (object.clone(), bytes.into());
        self.call(move |_| object.write_at(&bytes, offset))
    }

    /// As [`ObjectStore::delete_object`].
    pub fn delete_object(&self, name: impl AsRef<[u8]>) -> Pending<()> {
        let name = name.as_ref().to_vec();
        self.call(move |store| store.delete_object(name))
    }

    /// As [`ObjectStore::sync`].
    pub fn sync(&self) -> Pending<()> {
        self.call(ObjectStore::sync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Database, DatabaseConfiguration, ErrorKind};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};
    use std::task::Wake;

    /// Wakes the thread that waits.
    struct Thread(std::thread::Thread);

    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn wait<T>(mut pending: Pending<T>) -> Result<T> {
        let waker = Waker::from(Arc::new(Thread(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut pending).poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    fn store() -> ObjectStore {
        let storage = StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::memory(16 << 20).into()])],
            ..StoragePoolConfiguration::default()
        };
        let configuration =
            DatabaseConfiguration { storage, segment_size: 1 << 19, ..DatabaseConfiguration::default() };
        let database = Database::create_with(configuration, false).unwrap();
        database.create_object_store("s").unwrap()
    }

    #[test]
    fn calls_are_made_in_order_and_tell_what_became_of_them() {
        let store = store();
        let asynchronous = store.asynchronous(1).unwrap();
        let puts: Vec<_> = (0..20_u8).map(|n| asynchronous.put("o", vec![n; 100])).collect();
        let got = asynchronous.get("o");
        for put in puts {
            assert_eq!(wait(put).unwrap().size, 100);
        }
        assert_eq!(wait(got).unwrap().unwrap(), [19; 100]);
        let object = store.open_object("o").unwrap().unwrap();
        assert_eq!(wait(asynchronous.write_at(&object, *b"tail", 98)).unwrap(), 4);
        assert_eq!(wait(asynchronous.read_at(&object, 97, 50)).unwrap(), b"\x13tail");
        wait(asynchronous.sync()).unwrap();
        wait(asynchronous.delete_object("o")).unwrap();
        assert_eq!(wait(asynchronous.get("o")).unwrap(), None);
        let error = wait(asynchronous.read_at(&object, 0, 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_call_that_panics_is_an_error_and_the_next_one_is_made() {
        let asynchronous = store().asynchronous(1).unwrap();
        let panics: Pending<()> = asynchronous.call(|_| panic!("on purpose"));
        assert_eq!(wait(panics).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(wait(asynchronous.get("o")).unwrap(), None);
    }

    #[test]
    fn what_was_begun_is_done_when_the_last_handle_goes() {
        let store = store();
        let asynchronous = store.asynchronous(2).unwrap();
        // Nobody waits.
        (0..50_u8).for_each(|n| drop(asynchronous.put([n], [n])));
        drop(asynchronous.clone());
        drop(asynchronous);
        assert_eq!(store.list_objects::<&[u8]>(..).count(), 50);
    }
}
