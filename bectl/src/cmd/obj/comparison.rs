//! Whether a file and an object have the same bytes.
//!
//! Size and time of change do not say so: tools that pack sources give all files one time, and two versions of a file may be
//! of one length.

use crate::interrupt::Interrupt;
use betree::ObjectView;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Read at once from both: enough for the store to read ahead.
const BUFFER_BYTES: u64 = 1 << 20;

/// Reads `file` and `object`, up to the first byte that differs; both have the size of the object.
///
/// # Errors
/// Reading either fails; Ctrl-C.
pub fn is_same(interrupt: &Interrupt, file: &File, object: &ObjectView) -> anyhow::Result<bool> {
    let size = object.size();
    let length = size.min(BUFFER_BYTES) as usize;
    let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
    let mut at = 0;
    while at < size {
        interrupt.check()?;
        let length = (size - at).min(BUFFER_BYTES) as usize;
        match file.read_exact_at(&mut theirs[..length], at) {
            Ok(()) => {}
            // It was cut meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let read = object.read_at(&mut ours[..length], at)?;
        if read != length || ours[..length] != theirs[..length] {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}
