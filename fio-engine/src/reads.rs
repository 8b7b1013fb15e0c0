//! The reads of a job that its own thread has under way, without threads that wait for them.

use crate::boundary::caught;
use crate::job::Service;
use crate::request::Request;
use crate::target::Begun;
use crate::workers::{Completion, Token};
use betree::{ReadQueue, Result};
use slab::Slab;
use std::collections::VecDeque;
use std::time::Instant;

/// A read under way.
#[derive(Debug)]
struct UnderWay {
    token: Token,
    request: Request,
    /// How many bytes it will be; `None`: as many as arrive.
    length: Option<usize>,
}

/// Reads under way, and those that arrived until they are fetched.
///
/// Dropping it waits for what is under way.
#[derive(Debug)]
pub struct Reads {
    queue: ReadQueue,
    under_way: Slab<UnderWay>,
    arrived: VecDeque<(Token, i64)>,
}

/// What became of a read that was submitted.
pub enum Submitted {
    /// It was served, with this result.
    Served(i64),
    /// It will be fetched.
    UnderWay,
    /// Somebody has to wait for it.
    Waits(Token, Request),
}

impl Reads {
    /// Room for `depth` reads; `None` where the system has no way for it.
    pub fn new(depth: u32) -> Option<Self> {
        let queue = ReadQueue::new(depth);
        queue.is_available().then(|| Self { queue, under_way: Slab::new(), arrived: VecDeque::new() })
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Begins the read that `request` is.
    pub fn begin(&mut self, service: &Service, token: Token, request: Request) -> Submitted {
        let entry = self.under_way.vacant_entry();
        let tag = entry.key();
        let under_way = entry.insert(UnderWay { token, request, length: None });
        let request = &mut under_way.request;
        let mut begun = None;
        let result = caught(|| {
            let (target, place) = (&request.target, request.buffer.bytes_mut());
            match target.begin(&mut self.queue, place, request.offset, tag as u64) {
                Ok(known) => {
                    begun = Some(known);
                    0
                }
                Err(error) => service.tell(request, &error),
            }
        });
        match begun {
            Some(Begun::UnderWay(length)) => {
                under_way.length = length;
                Submitted::UnderWay
            }
            Some(Begun::Waits) => {
                let UnderWay { token, request, .. } = self.under_way.remove(tag);
                Submitted::Waits(token, request)
            }
            Some(Begun::Read(length)) => {
                self.under_way.remove(tag);
                Submitted::Served(length as i64)
            }
            None => {
                self.under_way.remove(tag);
                Submitted::Served(result)
            }
        }
    }

    /// Sends what was begun on its way.
    pub fn submit(&mut self) -> Result<()> {
        self.queue.submit()
    }

    /// Waits until `least` reads, or all, have arrived, or until `deadline`, and takes what has.
    pub fn wait(&mut self, service: &Service, least: usize, deadline: Option<Instant>) -> Result<()> {
        self.queue.wait(least, deadline)?;
        while let Some(arrived) = self.queue.next_arrived() {
            let Some(under_way) = self.under_way.try_remove(arrived.tag() as usize) else { continue };
            let UnderWay { token, mut request, length } = under_way;
            let result = caught(|| {
                let place = request.buffer.bytes_mut();
                match arrived.finish(place) {
                    Ok(read) => {
                        let filled = read.map_or(0, |read| read.filled);
                        let length = length.unwrap_or(filled);
                        place[filled..length].fill(0);
                        length as i64
                    }
                    Err(error) => service.tell(&request, &error),
                }
            });
            self.arrived.push_back((token, result));
        }
        Ok(())
    }

    /// Puts reads that arrived into `place`, as many as there are. Returns how many.
    pub fn take(&mut self, place: &mut [Completion]) -> usize {
        let count = place.len().min(self.arrived.len());
        for (place, (token, result)) in place.iter_mut().zip(self.arrived.drain(..count)) {
            *place = token.completion(result);
        }
        count
    }
}
