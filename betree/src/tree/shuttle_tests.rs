//! Claims, gates and the queue of jobs in many orders.

use super::claim::{Claims, Place};
use super::{Job, JobQueue};
use crate::base::exploration::explore;
use crate::base::ids::DatasetId;
use crate::base::sync::thread;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Who is where: a lock of the standard library, so that to the scheduler a look is one step.
#[derive(Default)]
struct Present {
    claimed: Mutex<BTreeMap<Place, u32>>,
    gates: Mutex<BTreeMap<Place, (u32, u32)>>,
}

#[test]
fn shuttle_claims_and_gates_exclude_and_never_hang() {
    explore(4000, || {
        let (claims, present) = (Arc::new(Claims::default()), Arc::new(Present::default()));
        let threads: Vec<_> = (0..4_u8)
            .map(|thread| {
                let (claims, present) = (Arc::clone(&claims), Arc::clone(&present));
                thread::spawn(move || {
                    for round in 0..3_u8 {
                        let place: Place = (1 + (thread + round) % 2, vec![round % 2]);
                        // A flush takes the claim of its slot and a share of the gate below, a split the whole gate.
                        if let Some(claim) = claims.claim(place.clone()) {
                            let mut claimed = present.claimed.lock().unwrap();
                            let inside = claimed.entry(place.clone()).or_default();
                            *inside += 1;
                            assert_eq!(*inside, 1, "two jobs on one slot");
                            drop(claimed);
                            thread::yield_now();
                            *present.claimed.lock().unwrap().entry(place.clone()).or_default() -= 1;
                            drop(claim);
                        }
                        let alone = (thread + round) % 3 == 0;
                        let gate =
                            if alone { claims.exclude(place.clone()) } else { claims.share(place.clone()) };
                        let mut gates = present.gates.lock().unwrap();
                        let inside = gates.entry(place.clone()).or_default();
                        if alone {
                            inside.1 += 1
                        } else {
                            inside.0 += 1
                        }
                        assert!(inside.1 == 0 || *inside == (0, 1), "{inside:?} in one gate");
                        drop(gates);
                        thread::yield_now();
                        let mut gates = present.gates.lock().unwrap();
                        let inside = gates.entry(place).or_default();
                        if alone {
                            inside.1 -= 1
                        } else {
                            inside.0 -= 1
                        }
                        drop(gates);
                        drop(gate);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // Everything was given back.
        for level in 1..3 {
            for low in 0..2 {
                assert!(claims.claim((level, vec![low])).is_some());
                drop(claims.exclude((level, vec![low])));
            }
        }
    });
}

#[test]
fn shuttle_every_job_is_done_after_it_was_pushed() {
    explore(4000, || {
        let queue = Arc::new(JobQueue::default());
        // How much there was to do of each job, and how much was seen done: doing a job does all that was asked before.
        let (asked, done) = (Arc::new(Mutex::new([0_u32; 2])), Arc::new(Mutex::new([0_u32; 2])));
        let job = |number: usize| Job::MergeLeaf { low: vec![number as u8] };
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, asked, done) = (Arc::clone(&queue), Arc::clone(&asked), Arc::clone(&done));
                thread::spawn(move || {
                    while !queue.is_closed() {
                        if let Some(taken) = queue.pop(Duration::from_secs(1))
                            && let Job::MergeLeaf { low } = &taken.job
                        {
                            let number = usize::from(low[0]);
                            let asked = asked.lock().unwrap()[number];
                            thread::yield_now();
                            let mut done = done.lock().unwrap();
                            done[number] = done[number].max(asked);
                        }
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (queue, asked) = (Arc::clone(&queue), Arc::clone(&asked));
                thread::spawn(move || {
                    for number in [writer, 0, 1] {
                        asked.lock().unwrap()[number] += 1;
                        queue.push(DatasetId(1), job(number));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|thread| thread.join().unwrap());
        while *done.lock().unwrap() != *asked.lock().unwrap() {
            thread::yield_now();
        }
        queue.close();
        workers.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
