//! Messages of the library.

use crate::boundary::tell;

/// From now on, prints what the library has to say to stderr: errors, or as the environment variable RUST_LOG says. The second
/// call and all later ones do nothing. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_init_env_logger() {
    tell((), || {
        // Somebody else's logger stays.
        let _ = env_logger::try_init();
    });
}
