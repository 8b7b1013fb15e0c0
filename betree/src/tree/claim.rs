//! Who works on what: claims on slots, and gates that hold the pivots of a node still.
//!
//! A slot is claimed by (level, lower bound) for the time of a job: jobs on one slot take turns. A gate is held
//! *shared* by a flush into a node, from reading its pivots to installing its runs, and *exclusively* by a change of
//! those pivots, so that a run never crosses a pivot. Order: claim before gate before edit lock; the holder of a gate
//! waits for nothing but device I/O and the edit lock.

use crate::base::sync::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};

/// A node or slot: its level and lower bound.
pub(super) type Place = (u8, Vec<u8>);

#[derive(Debug, Default)]
struct State {
    claimed: HashSet<Place>,
    /// Positive: shared holders; −1: an exclusive holder.
    gates: HashMap<Place, i32>,
}

/// Claims and gates of one tree.
#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<State>,
    changed: Condvar,
}

/// A claimed slot; released on drop.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    place: Place,
}

/// A held gate; released on drop.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    claims: &'a Claims,
    place: Place,
}

impl Claims {
    /// Claims the slot at `place`; `None` when another job has it.
    pub fn claim(&self, place: Place) -> Option<Claim<'_>> {
        let free = self.state.lock().claimed.insert(place.clone());
        // Only now, and not by `then_some`: a claim that is made and dropped would release that of the other job.
        free.then(|| Claim { claims: self, place })
    }

    /// Holds the pivots of the node at `place`, together with other flushes.
    pub fn share(&self, place: Place) -> Gate<'_> {
        self.hold(place, |holders| (holders >= 0).then_some(holders + 1))
    }

    /// Holds the pivots of the node at `place` alone.
    pub fn exclude(&self, place: Place) -> Gate<'_> {
        self.hold(place, |holders| (holders == 0).then_some(-1))
    }

    /// Whether the slot at `place` is claimed.
    #[cfg(test)]
    pub fn is_claimed(&self, place: &Place) -> bool {
        self.state.lock().claimed.contains(place)
    }

    fn hold(&self, place: Place, enter: impl Fn(i32) -> Option<i32>) -> Gate<'_> {
        let mut state = self.state.lock();
        loop {
            let holders = state.gates.get(&place).copied().unwrap_or(0);
            if let Some(entered) = enter(holders) {
                state.gates.insert(place.clone(), entered);
                return Gate { claims: self, place };
            }
            self.changed.wait(&mut state);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.state.lock().claimed.remove(&self.place);
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        let mut state = self.claims.state.lock();
        let left = match state.gates.get(&self.place).copied().unwrap_or(0) {
            -1 => 0,
            holders => holders - 1,
        };
        if left == 0 {
            state.gates.remove(&self.place);
        } else {
            state.gates.insert(self.place.clone(), left);
        }
        drop(state);
        self.claims.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn claims_exclude_and_gates_admit_readers_together() {
        let claims = Claims::default();
        let claim = claims.claim((1, vec![])).unwrap();
        for _attempt in 0..2 {
            assert!(claims.claim((1, vec![])).is_none(), "a refused claim leaves the other one alone");
        }
        drop(claim);
        assert!(claims.claim((1, vec![])).is_some());
        let (first, second) = (claims.share((1, vec![])), claims.share((1, vec![])));
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let claims = &claims;
            scope.spawn(move || {
                let _alone = claims.exclude((1, vec![]));
                sender.send(()).unwrap();
            });
            drop(first);
            assert!(receiver.try_recv().is_err());
            drop(second);
            receiver.recv().unwrap();
        });
    }
}
