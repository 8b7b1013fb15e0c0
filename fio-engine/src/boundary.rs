//! Where the shim meets Rust: what it calls, and the one place where pointers become references.
//!
//! What no program can check is what the shim promises: a pointer that is not NULL points to what the function says, of the length
//! that goes with it, as long as the call lasts; a handle is of the kind that it is passed as, and was not freed. Calls about one
//! job come from one thread at a time, and so do those before any job runs.

use crate::errno::{errno_of, message_of};
use crate::job::{Job, Manner};
use crate::place::Place;
use crate::registry;
use crate::request::{Buffer, Operation, Request};
use crate::shared::{Interface, Making};
use crate::target::Target;
use crate::workers::{Completion, Token};
use betree::{Error, Result, StoragePreference};
use libc::{EIO, ENOENT};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What `body` returns; -EIO when it panics.
pub fn caught(body: impl FnOnce() -> i64) -> i64 {
    // What a panic leaves behind is behind locks that do not know of it, or is dropped here. The message is on stderr by now.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(-i64::from(EIO))
}

/// What `body` returns, or a negative errno; errors are told on stderr.
fn call(what: &str, body: impl FnOnce() -> Result<i64>) -> i64 {
    caught(|| {
        body().unwrap_or_else(|error| {
            eprintln!("betree: {what}: {}", message_of(&error));
            -i64::from(errno_of(&error))
        })
    })
}

fn done(what: &str, body: impl FnOnce() -> Result<()>) -> c_int {
    call(what, || body().map(|()| 0)) as c_int
}

fn illegal(what: &'static str, reason: impl Into<String>) -> Error {
    Error::InvalidArgument { what, reason: reason.into() }
}

fn given<T>(what: &'static str, handle: Option<T>) -> Result<T> {
    handle.ok_or_else(|| illegal(what, "it is NULL"))
}

/// The bytes of text that ends with a zero byte; NULL is none.
fn text<'a>(start: *const c_char) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: not NULL; the shim has a zero byte at its end.
    Some(unsafe { CStr::from_ptr(start) }.to_bytes())
}

fn name_of<'a>(start: *const c_char) -> Result<&'a [u8]> {
    given("name", text(start))
}

/// Where a job wants its database.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Location {
    /// File of the configuration; NULL: the one that BETREE_CONFIG names, else the defaults.
    configuration: *const c_char,
    /// Number of the job that has the database for itself; 0: jobs with the same place share it.
    owner: u32,
    /// Whether the files of fio are the devices of the fastest tier.
    files_are_devices: bool,
}

impl Location {
    fn get(&self) -> Place {
        let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        // Two names of one file are one place.
        let whole = |path: PathBuf| path.canonicalize().unwrap_or(path);
        Place {
            configuration: text(self.configuration).map(path).map(whole),
            owner: self.owner,
            files_are_devices: self.files_are_devices,
        }
    }
}

/// A file that is open.
#[derive(Debug)]
pub struct File(Arc<Target>);

/// What a job is to be.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Settings {
    /// Its database.
    place: Location,
    /// Its name.
    name: *const c_char,
    /// What its files are: a number of betree_fio_interface.
    interface: u32,
    /// Tier that its writes prefer, 0 to 3; any other number: none.
    preference: u8,
    /// Whether each write is durable before it is done.
    durable: bool,
    /// Bytes of a block of a file that is keys.
    kv_block: u64,
    /// Writes from one snapshot to the next; 0: there are none.
    snapshot_writes: u64,
    /// Snapshots that are held at once.
    snapshots_kept: u32,
}

/// Says that a job at `place` has the file `path`, which needs `bytes` bytes. `direct` is 1 for direct I/O, 0 for none, -1 for what
/// the configuration says. To be called for all jobs before the first one is set up.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_wish(
    place: Option<&Location>,
    path: *const c_char,
    bytes: u64,
    direct: c_int,
) -> c_int {
    done("file", || {
        let direct = usize::try_from(direct).ok().map(|direct| direct > 0);
        let path = Path::new(OsStr::from_bytes(name_of(path)?));
        registry::wish(&given("place", place)?.get(), path.to_owned(), bytes, direct);
        Ok(())
    })
}

/// Makes a job, and opens its database unless another job has. `*job` is the job; `betree_fio_end` takes it.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_set_up(settings: Option<&Settings>, job: Option<&mut *mut Job>) -> c_int {
    done("database", || {
        // Somebody else's logger stays.
        let _ = env_logger::try_init();
        let (settings, job) = (given("settings", settings)?, given("job", job)?);
        let making = Making {
            interface: Interface::of(settings.interface)?,
            preference: StoragePreference::new(settings.preference).unwrap_or_default(),
            block_bytes: settings.kv_block,
        };
        let manner = Manner {
            name: String::from_utf8_lossy(name_of(settings.name)?).into_owned(),
            making,
            is_durable: settings.durable,
            snapshot_writes: settings.snapshot_writes,
            snapshots_kept: settings.snapshots_kept as usize,
        };
        let made = Job::new(registry::lease(&settings.place.get())?, manner)?;
        *job = Box::into_raw(Box::new(made));
        Ok(())
    })
}

/// Ends a job; the last one of a database closes it.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_end(job: Option<Box<Job>>) -> c_int {
    done("closing", || job.map_or(Ok(()), |job| job.end()))
}

/// Closes what is open although the process ends.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_close_all() -> c_int {
    done("closing", registry::close_all)
}

/// Length of the file `name` in bytes; -ENOENT when there is none.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_file_size(job: Option<&Job>, name: *const c_char) -> i64 {
    call("file", || {
        let size = given("job", job)?.file_size(name_of(name)?)?;
        Ok(size.map_or(-i64::from(ENOENT), |size| i64::try_from(size).unwrap_or(i64::MAX)))
    })
}

/// Makes the file `name` at least `size` bytes long; what was never written reads as zeros.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_extend(job: Option<&Job>, name: *const c_char, size: u64) -> c_int {
    done("file", || given("job", job)?.extend(name_of(name)?, size))
}

/// Writes `length` bytes at byte `offset` of the file `name`, before jobs run.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_fill(
    job: Option<&Job>,
    name: *const c_char,
    offset: u64,
    bytes: *mut c_void,
    length: usize,
) -> c_int {
    done("filling a file", || {
        // SAFETY: the shim has that many bytes there, and waits.
        let buffer = unsafe { Buffer::new(bytes, length) };
        given("job", job)?.fill(name_of(name)?, offset, buffer.bytes())
    })
}

/// Makes what was filled durable, and waits until the trees have the shape that they keep.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_settle(job: Option<&Job>) -> c_int {
    done("filling files", || given("job", job)?.settle())
}

/// Forgets what is cached of the database.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_drop_cache(job: Option<&Job>) -> c_int {
    done("cache", || {
        given("job", job)?.drop_cache();
        Ok(())
    })
}

/// Opens the file `name`, or makes it. With `cold` the cache is dropped the first time. `betree_fio_close` takes `*file`.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_open(
    job: Option<&mut Job>,
    name: *const c_char,
    cold: bool,
    file: Option<&mut *mut File>,
) -> c_int {
    done("file", || {
        let file = given("file", file)?;
        let target = given("job", job)?.open(name_of(name)?, cold)?;
        *file = Box::into_raw(Box::new(File(target)));
        Ok(())
    })
}

/// Closes a file; NULL is none. Requests that are under way keep it.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_close(file: Option<Box<File>>) {
    caught(|| {
        drop(file);
        0
    });
}

/// Removes the file `name`.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_remove(job: Option<&Job>, name: *const c_char) -> c_int {
    done("file", || {
        match given("job", job)?.remove(name_of(name)?) {
            // fio removes what it has removed already, and looks at the number only.
            Err(error) if error.kind() == betree::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    })
}

/// Starts what serves up to `depth` requests that are submitted: `threads` threads, and what needs none.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_start(job: Option<&mut Job>, depth: u32, threads: u32) -> c_int {
    done("threads", || {
        let started = given("job", job)?.start(depth, threads as usize);
        started.map_err(|error| illegal("iodepth", format!("the operating system refuses a thread: {error}")))
    })
}

/// The request that the arguments say.
fn request(
    file: Option<&File>,
    operation: u32,
    offset: u64,
    bytes: *mut c_void,
    length: usize,
) -> Result<Request> {
    // SAFETY: fio has that many bytes there, and leaves them alone until the request is handed back.
    let buffer = unsafe { Buffer::new(bytes, length) };
    let (target, operation) = (Arc::clone(&given("file", file)?.0), Operation::of(operation)?);
    Ok(Request { operation, target, offset, length: length as u64, buffer })
}

/// Serves a request in the calling thread; `operation` is a number of betree_fio_operation. Returns how many bytes were done, or a negative errno.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_serve(
    job: Option<&Job>,
    file: Option<&File>,
    operation: u32,
    offset: u64,
    bytes: *mut c_void,
    length: usize,
) -> i64 {
    call("request", || {
        let mut request = request(file, operation, offset, bytes, length)?;
        Ok(given("job", job)?.service().serve(&mut request))
    })
}

/// Takes a request, which `betree_fio_announce` lets begin; `betree_fio_fetch` gives `token` back when it was served. Or returns 1 when it was served
/// at once, with what `betree_fio_serve` would return in `*result`; it is not fetched then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_submit(
    job: Option<&mut Job>,
    file: Option<&File>,
    operation: u32,
    offset: u64,
    bytes: *mut c_void,
    length: usize,
    token: *mut c_void,
    result: Option<&mut i64>,
) -> c_int {
    call("request", || {
        let (job, result) = (given("job", job)?, given("result", result)?);
        let served = job.submit(Token(token), request(file, operation, offset, bytes, length)?)?;
        Ok(served.map_or(0, |served| {
            *result = served;
            1
        }))
    }) as c_int
}

/// Lets what was submitted begin.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_announce(job: Option<&mut Job>) -> c_int {
    done("request", || given("job", job)?.announce())
}

/// Waits until nothing that was submitted is under way: until then the buffers of requests are in use.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_drain(job: Option<&mut Job>) -> c_int {
    done("request", || given("job", job)?.drain())
}

/// Waits until `least` requests were served, for `timeout_ns` nanoseconds at most unless that is negative, and puts up to `most` at
/// `place`. Returns how many.
#[unsafe(no_mangle)]
pub extern "C" fn betree_fio_fetch(
    job: Option<&mut Job>,
    place: *mut Completion,
    least: u32,
    most: u32,
    timeout_ns: i64,
) -> c_int {
    call("requests", || {
        let job = given("job", job)?;
        if place.is_null() {
            return Err(illegal("place", "it is NULL"));
        }
        // SAFETY: not NULL; the shim has `most` completions there, of zeros or of the last time.
        let place = unsafe { std::slice::from_raw_parts_mut(place, most as usize) };
        let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(job.fetch(place, least as usize, deadline)? as i64)
    }) as c_int
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::EINVAL;
    use std::ptr::{null, null_mut};

    fn package() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The shim is compiled with the header that is committed.
    #[test]
    fn the_header_is_fresh() {
        let config = cbindgen::Config::from_file(package().join("cbindgen.toml")).unwrap();
        let mut builder = cbindgen::Builder::new().with_config(config);
        for file in ["request", "shared", "job", "workers", "boundary"] {
            builder = builder.with_src(package().join("src").join(file).with_extension("rs"));
        }
        let mut generated = Vec::new();
        builder.generate().unwrap().write(&mut generated);
        let generated = String::from_utf8(generated).unwrap();
        let path = package().join("engine.h");
        if std::env::var_os("BETREE_HEADER").is_some_and(|value| value == "write") {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        assert!(
            committed == generated,
            "engine.h is not what the sources make; BETREE_HEADER=write writes it"
        );
    }

    #[test]
    fn a_panic_is_an_errno() {
        assert_eq!(caught(|| panic!("on purpose")), -i64::from(EIO));
        assert_eq!(done("nothing", || panic!("on purpose")), -EIO);
    }

    #[test]
    fn misuse_is_an_errno() {
        let mut job = null_mut();
        assert_eq!(betree_fio_set_up(None, Some(&mut job)), -EINVAL);
        assert_eq!(betree_fio_wish(None, c"a".as_ptr(), 1, 1), -EINVAL);
        assert_eq!(betree_fio_file_size(None, null()), -i64::from(EINVAL));
        assert_eq!(betree_fio_serve(None, None, 0, 0, null_mut(), 0), -i64::from(EINVAL));
        assert_eq!(betree_fio_fetch(None, null_mut(), 1, 1, -1), -EINVAL);
        assert_eq!(betree_fio_end(None), 0);
        betree_fio_close(None);
        assert!(Operation::of(4).is_err() && Interface::of(2).is_err());
    }

    /// What the shim does for a job with threads, as C does it.
    #[test]
    fn a_job_from_its_files_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("config.json");
        std::fs::write(&document, r#"{"cache_size": "16MiB"}"#).unwrap();
        let text = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        let (document, device) = (text(&document), text(&folder.path().join("device")));
        let place = Location { configuration: document.as_ptr(), owner: 0, files_are_devices: true };
        assert_eq!(betree_fio_wish(Some(&place), device.as_ptr(), 1 << 20, 0), 0);
        for interface in [Interface::Object, Interface::Kv] {
            let settings = Settings {
                place,
                name: c"job".as_ptr(),
                interface: interface as u32,
                preference: 255,
                durable: true,
                kv_block: 4096,
                snapshot_writes: 8,
                snapshots_kept: 1,
            };
            let mut job = null_mut();
            assert_eq!(betree_fio_set_up(Some(&settings), Some(&mut job)), 0);
            // SAFETY: made by the call above.
            let mut job = unsafe { Box::from_raw(job) };
            let name = c"file".as_ptr();
            assert_eq!(betree_fio_file_size(Some(&job), name), -i64::from(ENOENT));
            assert_eq!(betree_fio_extend(Some(&job), name, 1 << 20), 0);
            let mut bytes = vec![7u8; 4096];
            assert_eq!(betree_fio_fill(Some(&job), name, 8192, bytes.as_mut_ptr().cast(), 4096), 0);
            assert_eq!(betree_fio_settle(Some(&job)), 0);
            let mut file = null_mut();
            assert_eq!(betree_fio_open(Some(&mut job), name, true, Some(&mut file)), 0);
            // SAFETY: made by the call above.
            let file = unsafe { Box::from_raw(file) };
            assert_eq!(betree_fio_start(Some(&mut job), 64, 3), 0);
            let mut buffers: Vec<Vec<u8>> = (0..64u8).map(|i| vec![i; 4096]).collect();
            let run = |job: &mut Job, operation: Operation, buffers: &mut [Vec<u8>]| {
                let mut seen = Vec::new();
                for (index, buffer) in buffers.iter_mut().enumerate() {
                    let (at, token) = (index as u64 * 4096, std::ptr::without_provenance_mut(index + 1));
                    let start = buffer.as_mut_ptr().cast();
                    let (job, file, mut result) = (Some(&mut *job), Some(&*file), 0);
                    let operation = operation as u32;
                    match betree_fio_submit(job, file, operation, at, start, 4096, token, Some(&mut result)) {
                        0 => {}
                        1 => {
                            assert_eq!(result, 4096);
                            seen.push(index + 1);
                        }
                        error => panic!("{error}"),
                    }
                }
                assert_eq!(betree_fio_announce(Some(job)), 0);
                let mut place = [Completion { token: null_mut(), result: 0 }; 10];
                while seen.len() < buffers.len() {
                    let count = betree_fio_fetch(Some(job), place.as_mut_ptr(), 1, 10, -1);
                    let of = |done: &Completion| {
                        assert_eq!(done.result, 4096);
                        done.token.addr()
                    };
                    seen.extend(place[..count as usize].iter().map(of));
                }
                seen.sort_unstable();
                assert_eq!(seen, (1..=buffers.len()).collect::<Vec<_>>());
                assert_eq!(betree_fio_fetch(Some(job), place.as_mut_ptr(), 1, 10, 0), 0);
            };
            run(&mut job, Operation::Write, &mut buffers);
            let mut read = vec![vec![255; 4096]; 64];
            run(&mut job, Operation::Read, &mut read);
            assert_eq!(read, buffers);
            let served =
                betree_fio_serve(Some(&job), Some(&file), 0, 1 << 20, bytes.as_mut_ptr().cast(), 4096);
            assert_eq!(served, 0, "beyond the end nothing is read");
            betree_fio_close(Some(file));
            assert_eq!(betree_fio_remove(Some(&job), name), 0);
            assert_eq!(betree_fio_end(Some(job)), 0);
        }
        assert_eq!(betree_fio_close_all(), 0);
    }
}
