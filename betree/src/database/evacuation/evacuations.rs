//! The evacuation of a database: what is kept of it, and running it.

use super::format::{EVACUATIONS, EvacuationRecord, evacuation_key};
use super::status::{EvacuationState, EvacuationStatus};
use crate::base::ids::VdevId;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::core::Core;
use crate::database::error::{Error, Result};
use crate::database::scrub::{Copying, Lap, ScrubFinding, busy, now};
use crate::tree::View;

/// Findings that are told; the others are counted.
const FINDINGS_MAX: usize = 100;

/// Bytes of a record that fills up the log.
const FILLER_BYTES: usize = 64 << 10;

/// Rounds in which something is left and nothing becomes less, before that is taken for what nothing reaches.
const ROUNDS_IN_VAIN_MAX: u32 = 3;

/// What a database keeps of its evacuations.
#[derive(Debug, Default)]
pub(in crate::database) struct Evacuations {
    kept: Mutex<Kept>,
    /// Held while one runs.
    turn: Mutex<()>,
    /// How often who ran or was about to was asked to end.
    stops: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    record: Option<EvacuationRecord>,
    findings: Vec<ScrubFinding>,
    is_changed: bool,
}

impl Evacuations {
    /// What the checkpoint that is being written says of them: key and record.
    pub fn take_record(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut kept = self.kept.lock();
        let Kept { record: Some(record), is_changed, .. } = &mut *kept else { return None };
        std::mem::take(is_changed).then(|| (evacuation_key(), record.encode()))
    }

    /// Takes over what the root tree says of them; `has_left` knows which vdevs left.
    pub fn load(&self, root: &View, has_left: impl Fn(VdevId) -> bool) -> Result<()> {
        let value = root.get(&evacuation_key()).map_err(|error| Error::of_tree(b"root tree", error))?;
        let decoded = value.map(|value| EvacuationRecord::decode(&value)).transpose();
        let mut record = decoded.unwrap_or_else(|error| {
            log::error!("what the root tree says of evacuations (key {EVACUATIONS}) is lost: {error}");
            None
        });
        if let Some(record) = record.as_mut().filter(|record| record.state == EvacuationState::Running) {
            // Who ran it is gone.
            record.state = match has_left(record.vdev) {
                true => EvacuationState::Finished,
                false => EvacuationState::Stopped,
            };
        }
        self.kept.lock().record = record;
        Ok(())
    }

    pub fn status(&self) -> Option<EvacuationStatus> {
        let kept = self.kept.lock();
        kept.record.as_ref().map(|record| EvacuationStatus::of(record, kept.findings.clone()))
    }

    /// Asks the one that runs, or is about to, to end.
    pub fn stop(&self) {
        self.stops.fetch_add(1, Ordering::AcqRel);
    }

    /// How often that was asked: whoever is to begin notes it, and ends when it is more.
    pub fn stops(&self) -> u64 {
        self.stops.load(Ordering::Acquire)
    }

    fn set_state(&self, state: EvacuationState) {
        let mut kept = self.kept.lock();
        kept.is_changed = true;
        if let Some(record) = &mut kept.record {
            record.state = state;
            record.ended = now();
        }
    }
}

impl Core {
    /// Copies what is on `vdev` to others, until it holds nothing and has left, or `goes_on` or `watch` says no.
    pub fn run_evacuation(
        &self,
        vdev: VdevId,
        by: &str,
        goes_on: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&EvacuationStatus) -> bool,
    ) -> Result<EvacuationStatus> {
        let Some(_turn) = self.evacuations.turn.try_lock() else { return Err(busy("evacuation")) };
        // E5: what a member that is being filled lacks of the copies, nobody would know.
        let Some(_filling) = self.scrubs.resilvering.try_lock() else { return Err(busy("resilver")) };
        self.check_accepts()?;
        let _guard = self.fail_on_panic();
        // What an earlier one had no room for.
        self.depart()?;
        if !self.pool.present().any(|present| present.id == vdev) {
            return Err(Error::NotFound { what: "vdev", name: vdev.to_string() });
        }
        if let Some(lacking) = self.pool.lacking().into_iter().find(|lacking| lacking.vdev != vdev) {
            let by = format!("the resilver of {}, which comes first", lacking.name);
            return Err(Error::Busy { what: "vdev", name: vdev.to_string(), by });
        }
        self.dmu.close_vdev(vdev)?;
        if self.dmu.is_weaker_without(vdev) {
            log::warn!(
                "vdev {vdev} is more redundant than others: what was on it may be lost with fewer devices from then on"
            );
        }
        let record = EvacuationRecord {
            state: EvacuationState::Running,
            vdev,
            started: now(),
            ended: 0,
            bytes_done: 0,
            bytes_total: self.dmu.used_blocks(vdev) * BLOCK_BYTES_U64,
            by: by.chars().take(256).collect(),
        };
        *self.evacuations.kept.lock() = Kept { record: Some(record), findings: Vec::new(), is_changed: true };
        let ended = self.evacuate(vdev, goes_on, watch);
        let has_left = {
            // A checkpoint that is being written may have the copies; and it is not only this thread that writes one.
            let _between = self.checkpointer.lock();
            let has_left = self.dmu.has_left(vdev);
            if !has_left {
                self.dmu.open_vdev(vdev);
            }
            has_left
        };
        let state = if has_left { EvacuationState::Finished } else { EvacuationState::Stopped };
        self.evacuations.set_state(state);
        if has_left {
            if let Err(error) = ended {
                log::warn!("vdev {vdev} left, and then: {error}");
            }
            // It is out of use, whether or not there is room to write that down: the next evacuation or opening does.
            if let Err(error) = self.depart() {
                log::warn!("vdev {vdev} left, and is still in the list of vdevs: {error}");
            }
        } else {
            if self.check_accepts().is_ok() {
                self.checkpoint(true)?;
            }
            ended?;
        }
        self.evacuations.status().ok_or_else(|| Error::NotFound { what: "evacuation", name: String::new() })
    }

    /// Copies what is on `vdev`, round after round, until it leaves or `goes_on` or `watch` says no.
    fn evacuate(
        &self,
        vdev: VdevId,
        goes_on: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&EvacuationStatus) -> bool,
    ) -> Result<()> {
        // What they left behind is written by the checkpoint.
        self.writers.wait();
        self.leave_log(vdev)?;
        let mut generation = self.checkpoint(true)?;
        let (mut left_before, mut in_vain) = (u64::MAX, 0);
        loop {
            let mut copying = Copying::new(self, generation, goes_on);
            loop {
                let lap = copying.lap();
                // The map grows, and with it what must stay free.
                self.measure_memtables();
                {
                    let mut kept = self.evacuations.kept.lock();
                    kept.is_changed = true;
                    let (blocks, findings) = copying.take();
                    let room = FINDINGS_MAX.saturating_sub(kept.findings.len());
                    kept.findings.extend(findings.into_iter().take(room));
                    if let Some(record) = &mut kept.record {
                        record.bytes_done += blocks * BLOCK_BYTES_U64;
                    }
                }
                match lap? {
                    Lap::More => {}
                    Lap::Interrupted => return Ok(()),
                    Lap::Done => break,
                }
                if !self.evacuations.status().is_none_or(|status| watch(&status)) {
                    return Ok(());
                }
            }
            if copying.damaged() > 0 {
                let reason = format!(
                    "{} thing(s) on vdev {vdev} are right on no member and cannot be copied; delete what they belong to",
                    copying.damaged()
                );
                return Err(Error::Corrupt { what: "evacuation", reason });
            }
            drop(copying);
            self.evacuations.kept.lock().is_changed = true;
            self.dmu.want_switch();
            generation = self.checkpoint(true)?;
            if self.dmu.has_left(vdev) {
                return Ok(());
            }
            if self.dmu.left_on_vdev() == Some(0) {
                // Somebody else's checkpoint was to do it, and failed.
                self.dmu.want_switch();
                generation = self.checkpoint(true)?;
                if self.dmu.has_left(vdev) {
                    return Ok(());
                }
            }
            let left = self.dmu.left_on_vdev().unwrap_or(u64::MAX);
            log::info!("evacuation of vdev {vdev}: {left} blocks are left for another round");
            let waits = left < left_before || self.snapshots.has_condemned();
            in_vain = if waits { 0 } else { in_vain + 1 };
            if in_vain > ROUNDS_IN_VAIN_MAX {
                let reason =
                    format!("{left} blocks of vdev {vdev} are taken, and nothing that can be read has them");
                return Err(Error::Corrupt { what: "evacuation", reason });
            }
            left_before = left;
            // What deleted snapshots had needs no copy.
            while self.snapshots.has_condemned() && goes_on() {
                self.checkpoint(true)?;
            }
        }
    }

    /// Fills the log up until it stands in extents of other vdevs.
    fn leave_log(&self, vdev: VdevId) -> Result<()> {
        let log = self.log()?;
        while log.stands_on(vdev) {
            self.check_accepts()?;
            let mut commit = self.commit.lock();
            commit.log_one(log, |writer| writer.filler(FILLER_BYTES))?;
            self.publish(&commit);
        }
        Ok(())
    }

    /// Takes vdevs out of the pool that the newest checkpoint does without: two more, so that neither that may be opened needs them.
    pub fn depart(&self) -> Result<()> {
        self.remove_departed()?;
        if !self.pool.has_removed() {
            return Ok(());
        }
        self.checkpoint(true)?;
        self.checkpoint(true)?;
        self.pool.clear_removed();
        Ok(())
    }

    /// Takes the same vdevs out of the list of vdevs, from the next checkpoint on.
    fn remove_departed(&self) -> Result<()> {
        let present: Vec<VdevId> = self.pool.present().map(|vdev| vdev.id).collect();
        for vdev in present.into_iter().filter(|vdev| self.dmu.has_left(*vdev)) {
            self.pool.remove(vdev)?;
        }
        Ok(())
    }
}
