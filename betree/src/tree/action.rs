//! What an upsert does to a value: the dataset's message action.

use super::part::ValuePart;
use super::steps::{Patch, Step, Steps};
use crate::base::codec::Encoder;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Applies the messages of a dataset to values and combines messages with each other.
///
/// Messages arrive in the order of their sequence numbers. `apply` and `merge` must be pure functions, and applying
/// `merge(upper, lower)` must equal applying `lower`, then `upper`: when the store does which is not defined.
pub trait MessageAction: Send + Sync + 'static {
    /// A stable name, stored with the dataset: opening it with an action of another name is an error.
    const NAME: &'static str;

    /// Changes `value` (`None`: the key has none) as `message` says; setting `None` deletes the key.
    fn apply(&self, key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>);

    /// One message that does what `lower` and then `upper` do; `None` when the two cannot be combined.
    fn merge(&self, key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>>;

    /// Does to `part` what `apply` does to the whole value. False when that cannot be known without the value: the reader
    /// then has it read as a whole, and what happened to `part` does not count. Messages of one key arrive oldest first.
    fn apply_to_part(&self, key: &[u8], message: &[u8], part: &mut ValuePart<'_>) -> bool {
        let _ = (key, message, part);
        false
    }
}

/// The action panicked: its dataset cannot be read or merged where the action is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionPanicked;

trait ErasedAction: Send + Sync {
    fn apply(&self, key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>);
    fn merge(&self, key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>>;
    fn apply_to_part(&self, key: &[u8], message: &[u8], part: &mut ValuePart<'_>) -> bool;
}

impl<M: MessageAction> ErasedAction for M {
    fn apply(&self, key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        MessageAction::apply(self, key, message, value);
    }

    fn merge(&self, key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        MessageAction::merge(self, key, upper, lower)
    }

    fn apply_to_part(&self, key: &[u8], message: &[u8], part: &mut ValuePart<'_>) -> bool {
        MessageAction::apply_to_part(self, key, message, part)
    }
}

/// A registered message action. A panic inside it poisons the action with an error, not the process.
#[derive(Clone)]
pub struct Action {
    name: &'static str,
    inner: Arc<dyn ErasedAction>,
    panicked: Arc<AtomicBool>,
}

impl Action {
    /// Wraps `action`.
    #[must_use]
    pub fn new<M: MessageAction>(action: M) -> Self {
        Self { name: M::NAME, inner: Arc::new(action), panicked: Arc::new(AtomicBool::new(false)) }
    }

    /// The stored name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it has panicked, and so applies and combines nothing any more.
    #[must_use]
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    fn guarded<T>(&self, call: impl FnOnce(&dyn ErasedAction) -> T) -> Result<T, ActionPanicked> {
        if self.has_panicked() {
            return Err(ActionPanicked);
        }
        catch_unwind(AssertUnwindSafe(|| call(&*self.inner))).map_err(|_| {
            log::error!("the message action {:?} panicked", self.name);
            self.panicked.store(true, Ordering::Release);
            ActionPanicked
        })
    }

    /// As [`MessageAction::apply`].
    ///
    /// # Errors
    /// `ActionPanicked` now or earlier.
    pub fn apply(
        &self,
        key: &[u8],
        message: &[u8],
        value: &mut Option<Vec<u8>>,
    ) -> Result<(), ActionPanicked> {
        self.guarded(|action| action.apply(key, message, value))
    }

    /// As [`MessageAction::merge`].
    ///
    /// # Errors
    /// `ActionPanicked` now or earlier.
    pub fn merge(&self, key: &[u8], upper: &[u8], lower: &[u8]) -> Result<Option<Vec<u8>>, ActionPanicked> {
        self.guarded(|action| action.merge(key, upper, lower))
    }

    /// As [`MessageAction::apply_to_part`].
    ///
    /// # Errors
    /// `ActionPanicked` now or earlier.
    pub fn apply_to_part(
        &self,
        key: &[u8],
        message: &[u8],
        part: &mut ValuePart<'_>,
    ) -> Result<bool, ActionPanicked> {
        self.guarded(|action| action.apply_to_part(key, message, part))
    }
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Action").field(&self.name).finish()
    }
}

/// The action of ordinary datasets: replace, delete, or overwrite bytes at an offset.
///
/// A message is a list of steps, applied in order: `0` delete; `1`, varint length, value: replace; `2`, u32 offset,
/// varint length, bytes: overwrite from the offset, filling a gap with zeros.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultMessageAction;

/// Beyond this size two messages are no longer combined: each reader of the key would read all of it at once.
const MERGED_BYTES_MAX: usize = 64 << 10;

/// Largest value that an upsert may produce.
pub(crate) const UPSERT_END_MAX: u64 = 16 << 20;

impl DefaultMessageAction {
    /// A message that replaces the value.
    #[must_use]
    pub fn insert_msg(value: &[u8]) -> Vec<u8> {
        let mut out = Encoder::with_capacity(value.len() + 6);
        Step::Replace(value).encode(&mut out);
        out.finish()
    }

    /// A message that deletes the key.
    #[must_use]
    pub fn delete_msg() -> Vec<u8> {
        vec![0]
    }

    /// A message that writes `bytes` at `offset` (bytes) of the value, which grows with zeros as needed.
    #[must_use]
    pub fn upsert_msg(offset: u32, bytes: &[u8]) -> Vec<u8> {
        let mut out = Encoder::with_capacity(bytes.len() + 10);
        Step::Write(offset as usize, bytes).encode(&mut out);
        out.finish()
    }

    /// Whether `message` is a well-formed list of steps within the limits.
    #[must_use]
    pub fn is_valid(message: &[u8]) -> bool {
        let mut steps = Steps::of(message);
        steps.by_ref().for_each(drop);
        steps.is_at_end()
    }
}

impl MessageAction for DefaultMessageAction {
    const NAME: &'static str = "default";

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        for step in Steps::of(message) {
            match step {
                Step::Delete => *value = None,
                Step::Replace(bytes) => *value = Some(bytes.to_vec()),
                Step::Write(offset, bytes) => {
                    let value = value.get_or_insert_with(Vec::new);
                    let end = offset + bytes.len();
                    if value.len() < end {
                        value.resize(end, 0);
                    }
                    value[offset..end].copy_from_slice(bytes);
                }
            }
        }
    }

    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        if upper.len() + lower.len() > 2 * MERGED_BYTES_MAX {
            return None;
        }
        Some(Patch::of([lower, upper])?.encode()).filter(|merged| merged.len() <= MERGED_BYTES_MAX)
    }

    fn apply_to_part(&self, _key: &[u8], message: &[u8], part: &mut ValuePart<'_>) -> bool {
        for step in Steps::of(message) {
            match step {
                Step::Delete => part.delete(),
                Step::Replace(bytes) => part.replace(bytes),
                Step::Write(offset, bytes) => part.write(offset as u64, bytes),
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Default = DefaultMessageAction;

    #[test]
    fn steps_apply_in_order_and_merge_equals_applying_both() {
        let messages = [
            Default::insert_msg(b"hello"),
            Default::upsert_msg(3, b"XYZ"),
            Default::delete_msg(),
            Default::upsert_msg(2, b"a"),
        ];
        for lower in &messages {
            for upper in &messages {
                let mut one = Some(b"start".to_vec());
                let mut two = one.clone();
                MessageAction::apply(&Default {}, b"k", lower, &mut one);
                MessageAction::apply(&Default {}, b"k", upper, &mut one);
                let merged = MessageAction::merge(&Default {}, b"k", upper, lower).unwrap();
                MessageAction::apply(&Default {}, b"k", &merged, &mut two);
                assert_eq!(one, two);
            }
        }
    }

    #[test]
    fn malformed_messages_are_recognised_and_harmless() {
        for message in [&[9][..], &[1], &[1, 200], &[2, 0, 0], &[2, 255, 255, 255, 255, 1, 1]] {
            assert!(!Default::is_valid(message));
            let mut value = Some(b"x".to_vec());
            MessageAction::apply(&Default {}, b"k", message, &mut value);
            assert_eq!(value.as_deref(), Some(&b"x"[..]));
        }
        assert!(Default::is_valid(&Default::upsert_msg(7, b"abc")));
    }

    struct Panics;
    impl MessageAction for Panics {
        const NAME: &'static str = "panics";
        fn apply(&self, _: &[u8], _: &[u8], _: &mut Option<Vec<u8>>) {
            panic!("on purpose");
        }
        fn merge(&self, _: &[u8], _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }

    #[test]
    fn a_panic_poisons_the_action_only() {
        let action = Action::new(Panics);
        assert_eq!(action.merge(b"", b"", b""), Ok(None));
        assert_eq!(action.apply(b"", b"", &mut None), Err(ActionPanicked));
        assert_eq!(action.merge(b"", b"", b""), Err(ActionPanicked));
    }
}
