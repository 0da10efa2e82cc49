//! Wakes what sleeps on a file descriptor: an event loop, or a thread.
//!
//! A bell is rung without the interpreter's lock: a thread of Rust that attached to a Python that is about to exit would
//! never come back, and on the way to a busy loop it would stand in line for that lock for milliseconds.

#[cfg(not(unix))]
use std::io;

#[cfg(unix)]
pub use unix::Bell;

/// The number of a file descriptor.
pub type Descriptor = i32;

#[cfg(unix)]
mod unix {
    use std::io::{self, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Descriptor;

    /// A bell, rung once however often it is told to before someone listens.
    #[derive(Debug)]
    pub struct Bell {
        rope: UnixStream,
        ear: UnixStream,
        rung: AtomicBool,
    }

    impl Bell {
        /// A bell that nobody has rung.
        ///
        /// # Errors
        /// When the process has no file descriptors left.
        pub fn new() -> io::Result<Self> {
            let (rope, ear) = UnixStream::pair()?;
            rope.set_nonblocking(true)?;
            ear.set_nonblocking(true)?;
            Ok(Self { rope, ear, rung: AtomicBool::new(false) })
        }

        /// The descriptor that is readable while the bell is rung.
        pub fn fd(&self) -> Descriptor {
            self.ear.as_raw_fd()
        }

        /// Wakes whoever sleeps.
        pub fn ring(&self) {
            if !self.rung.swap(true, Ordering::SeqCst) {
                // A full pipe is rung already; a closed one has nobody to wake.
                let _ = (&self.rope).write(&[1]);
            }
        }

        /// Makes it silent, before its owner looks for what it was rung for: what comes later rings again.
        pub fn hush(&self) {
            let mut bytes = [0; 64];
            while matches!((&self.ear).read(&mut bytes), Ok(64)) {}
            self.rung.store(false, Ordering::SeqCst);
        }
    }
}

/// No bell: such a store is refused before it needs one.
#[cfg(not(unix))]
#[derive(Debug)]
pub enum Bell {}

#[cfg(not(unix))]
impl Bell {
    /// # Errors
    /// Always.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// There is none.
    pub fn fd(&self) -> Descriptor {
        match *self {}
    }

    /// Never called.
    pub fn ring(&self) {
        match *self {}
    }

    /// Never called.
    pub fn hush(&self) {
        match *self {}
    }
}
