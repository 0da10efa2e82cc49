//! The mapped file as words. Every access is atomic, so that whatever others do at the same time, or whatever they have
//! left behind, a word is a word: nothing here can be undefined.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

use super::layout;

/// A mapping of the whole file, for as long as the process lives.
pub struct Map {
    raw: MmapRaw,
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} bytes)", self.raw.len())
    }
}

impl Map {
    /// Maps a file, which has its whole length already.
    pub fn new(file: &File) -> io::Result<Self> {
        Ok(Self { raw: MmapOptions::new().len(layout::BYTES).map_raw(file)? })
    }

    /// Its words.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        #[allow(clippy::cast_ptr_alignment)] // a page is aligned
        let begin = self.raw.as_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping is `BYTES` long, which are `WORDS` words; it begins on a page, so that words are aligned; it
        // lives as long as `self`; every bit pattern is a word. Nobody in this process or another accesses it but
        // through atomics (the bell's word is accessed by its halves alone).
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(begin, layout::WORDS)
        }
    }

    /// The bell: 32 bits, as a futex wants it.
    #[inline]
    pub fn bell(&self) -> &AtomicU32 {
        #[allow(clippy::cast_ptr_alignment)] // so is a word in it
        let bell = self.raw.as_ptr().wrapping_add(layout::BELL_AT * 8).cast::<AtomicU32>();
        // SAFETY: the word lies within the mapping and is aligned; it lives as long as `self`; nothing accesses that word
        // as one of 64 bits.
        #[allow(unsafe_code)]
        unsafe {
            &*bell
        }
    }
}

/// Locks a byte of the file for this process, far beyond what is in it, or says that another process has it. A process
/// that ends, in whatever way, lets go of it, before anyone has heard of its end; a child that it forks does not have it.
pub fn lock_byte(file: &File, byte: u64) -> io::Result<bool> {
    set_lock(file, byte, libc::F_WRLCK)
}

/// Lets go of a byte.
pub fn unlock_byte(file: &File, byte: u64) -> io::Result<()> {
    set_lock(file, byte, libc::F_UNLCK).map(drop)
}

fn set_lock(file: &File, byte: u64, kind: impl TryInto<libc::c_short>) -> io::Result<bool> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    // SAFETY: a struct of numbers, for which zero is a value.
    #[allow(unsafe_code)]
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind.try_into().map_err(|_| invalid())?;
    lock.l_whence = libc::SEEK_SET.try_into().map_err(|_| invalid())?;
    lock.l_start = byte.try_into().map_err(|_| invalid())?;
    lock.l_len = 1;
    // SAFETY: the descriptor is open as long as `file` is, and `F_SETLK` reads the struct that it is given.
    #[allow(unsafe_code)]
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EAGAIN) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another process holds a lock on that byte.
pub fn is_locked(file: &File, byte: u64) -> io::Result<bool> {
    use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
    let asked =
        Flock { start: byte, length: 1, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
    Ok(fcntl_getlk(file, &asked)?.is_some())
}
