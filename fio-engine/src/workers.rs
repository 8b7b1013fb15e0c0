//! The threads of a job: they take its requests in order, serve them side by side, and keep what they did until it is fetched.

use crate::boundary::caught;
use crate::job::Service;
use crate::request::Request;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// A request that was served.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Completion {
    /// What it was submitted with.
    pub token: *mut c_void,
    /// Bytes that were done, or a negative errno.
    pub result: i64,
}

/// What the submitter gave its request, to know it again; nobody here looks behind it.
#[derive(Debug)]
pub struct Token(pub *mut c_void);

impl Token {
    /// What goes back with it.
    pub fn completion(self, result: i64) -> Completion {
        Completion { token: self.0, result }
    }
}

// SAFETY: it is a number to us: it goes back to where it came from, and is not followed.
unsafe impl Send for Token {}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<(Token, Request)>,
    /// How many there were, taken or not.
    count: u64,
    /// Requests that nobody was woken for yet.
    unannounced: usize,
    /// Threads that wait.
    idle: usize,
    is_closing: bool,
}

#[derive(Debug, Default)]
struct Done {
    completions: Vec<(Token, i64)>,
    /// So many are waited for; 0: nobody waits.
    wanted: usize,
    /// Whether somebody waits for all of them.
    is_draining: bool,
    /// How many there were, fetched or not.
    count: u64,
}

#[derive(Debug, Default)]
struct Queues {
    queue: Mutex<Queue>,
    work: Condvar,
    done: Mutex<Done>,
    enough: Condvar,
}

/// The threads. Dropping ends them; what was submitted is served before.
#[derive(Debug)]
pub struct Workers {
    queues: Arc<Queues>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// The operating system refuses one; those that were started end.
    pub fn start(service: &Arc<Service>, threads: usize) -> io::Result<Self> {
        let mut workers = Self { queues: Arc::default(), threads: Vec::new() };
        for index in 0..threads.max(1) {
            let (queues, service) = (Arc::clone(&workers.queues), Arc::clone(service));
            let run = move || queues.work_off(&service);
            workers.threads.push(Builder::new().name(format!("fio-{index}")).spawn(run)?);
        }
        Ok(workers)
    }

    /// Adds `request`; nobody is woken for it before [`Workers::announce`].
    pub fn submit(&self, token: Token, request: Request) {
        let mut queue = self.queues.queue.lock();
        queue.requests.push_back((token, request));
        queue.count += 1;
        queue.unannounced += 1;
    }

    /// Wakes threads for what was submitted.
    pub fn announce(&self) {
        let mut queue = self.queues.queue.lock();
        let woken = std::mem::take(&mut queue.unannounced).min(queue.idle);
        drop(queue);
        for _ in 0..woken {
            self.queues.work.notify_one();
        }
    }

    /// Waits until everything that was submitted is served. What was not fetched is still there.
    pub fn drain(&self) {
        self.announce();
        let submitted = self.queues.queue.lock().count;
        let mut done = self.queues.done.lock();
        while done.count < submitted {
            done.is_draining = true;
            self.queues.enough.wait(&mut done);
        }
        done.is_draining = false;
    }

    /// Waits until `least` requests were served or until `deadline`, and puts up to as many as `place` has there. Returns how many.
    pub fn fetch(&self, place: &mut [Completion], least: usize, deadline: Option<Instant>) -> usize {
        let least = least.min(place.len());
        let mut done = self.queues.done.lock();
        while done.completions.len() < least {
            done.wanted = least;
            match deadline {
                None => self.queues.enough.wait(&mut done),
                Some(deadline) => {
                    if self.queues.enough.wait_until(&mut done, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        done.wanted = 0;
        let count = place.len().min(done.completions.len());
        for (place, (token, result)) in place.iter_mut().zip(done.completions.drain(..count)) {
            *place = token.completion(result);
        }
        count
    }
}

impl Queues {
    fn work_off(&self, service: &Service) {
        loop {
            let mut queue = self.queue.lock();
            let (token, mut request) = loop {
                if let Some(next) = queue.requests.pop_front() {
                    break next;
                }
                if queue.is_closing {
                    return;
                }
                queue.idle += 1;
                self.work.wait(&mut queue);
                queue.idle -= 1;
            };
            // Whoever takes a request need not be woken for it.
            queue.unannounced = queue.unannounced.min(queue.requests.len());
            drop(queue);
            let result = caught(|| service.serve(&mut request));
            drop(request);
            let mut done = self.done.lock();
            done.completions.push((token, result));
            done.count += 1;
            if done.is_draining {
                self.enough.notify_one();
            } else if done.wanted > 0 && done.completions.len() >= done.wanted {
                done.wanted = 0;
                drop(done);
                self.enough.notify_one();
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queues.queue.lock().is_closing = true;
        self.queues.work.notify_all();
        for thread in self.threads.drain(..) {
            // Nothing in a thread panics but what is caught.
            let _ = thread.join();
        }
    }
}
