//! Asking before something is destroyed.

use crate::context::Context;
use crate::failure::Failure;
use crate::output::to_stderr;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Returns when what `what` says ("destroys dataset x with 3 entries") may happen: because of `-y`, or because the
/// person at the terminal typed `name` in its escaped form.
///
/// # Errors
/// [`Failure::Refused`] when not, [`Failure::Interrupted`].
pub fn confirm(context: &Context, yes: bool, what: &str, name: &[u8]) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    to_stderr(&format!("This {what}."));
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Refused("nothing was changed; confirm with -y".into()).into());
    }
    let name = crate::text::escaped(name);
    let _prompt = write!(io::stderr().lock(), "Type \"{name}\" to go on: ");
    let mut answer = String::new();
    let input = io::Read::take(context.interrupt.stdin()?, ANSWER_BYTES_MAX);
    let read = BufReader::new(input).read_line(&mut answer);
    context.interrupt.check()?;
    read?;
    if answer.trim_end_matches(['\r', '\n']) == name {
        return Ok(());
    }
    Err(Failure::Refused(format!("that is not \"{name}\"; nothing was changed")).into())
}
