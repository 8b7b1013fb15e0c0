//! When a write survives a crash.

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// Nothing: a crash may lose the newest commits, never an earlier one before a later one.
    #[default]
    Buffered,
    /// The intent log on its device: the commit, and every one before it, survives a crash.
    Sync,
}
