//! The file of a limiter: where it is, whether it may be used, and how it is made.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::layout::{self, BOOT_AT, BYTES, CLOCK_AT, LOCK_AT, MAGIC, MAGIC_AT, MEMBERS, READY_AT, VERSION, VERSION_AT};
use super::lock;
use super::map::{self, Map};
use crate::clock::{self, Nanos};

/// The byte whose lock is held by whoever makes the file, and those of the members. Locks may lie anywhere.
const MAKING: u64 = 1 << 40;
const LIVING: u64 = 1 << 41;
/// Why nobody more joins.
pub const FULL: &str = "1024 limiters in other processes share the memory already, and no more may. End some of those, \
                        or give some a store of another name";
/// How long another may take to make the file.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a process asks whether others live, while that matters to it.
pub const ASK_AGAIN: Nanos = clock::SECOND / 5;

/// Why a shared store cannot be used.
#[derive(Debug)]
pub enum Trouble {
    /// The name cannot be a name.
    Name(String),
    /// Others use it with other limits: theirs, and those that were asked for.
    Conflict(String),
    /// It is not what it should be, or the system does not give it.
    Unusable(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Name(message) | Self::Conflict(message) | Self::Unusable(message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for Trouble {}

/// A file that this process has mapped. It stays mapped and open: closing any descriptor of it would let go of the locks
/// by which this process lives.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    file: File,
    map: Map,
    /// The members that are this process's own, a bit for each: no lock tells of those.
    own: [AtomicU64; MEMBERS / 64],
    /// How many calls of this process wait here.
    pub(super) waiting: AtomicUsize,
    /// When this process last asked whether others live.
    asked_at: AtomicU64,
    joining: Mutex<()>,
    entering: Mutex<()>,
    /// What wakes this process's waiters.
    pub(super) watch: super::watch::Watch,
}

/// Nobody else joins while this is there.
pub struct Joining<'a> {
    file: &'a File,
    _here: MutexGuard<'a, ()>,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        let _ = map::unlock_byte(self.file, MAKING);
    }
}

type Files = HashMap<(u64, u64), Arc<Mapped>>;

static FILES: LazyLock<Mutex<Files>> = LazyLock::new(Mutex::default);
static FORKS: AtomicU32 = AtomicU32::new(0);
/// Whether anything was ever mapped here: what a forked child asks first.
static ANY: AtomicBool = AtomicBool::new(false);

/// How often this process is a fork of a fork.
#[inline]
pub fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// What a forked child does: what it seems to be is its parent.
pub fn after_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    if !ANY.load(Ordering::Relaxed) {
        return;
    }
    for mapped in FILES.lock().values() {
        for bits in &mapped.own {
            bits.store(0, Ordering::Relaxed);
        }
        mapped.waiting.store(0, Ordering::Relaxed);
        mapped.watch.disown();
    }
}

/// The file for that name: for the owner of this process alone, and in memory where the system offers that.
///
/// # Errors
/// [`Trouble::Name`] for a name that could lead elsewhere.
pub fn path(name: &str) -> Result<PathBuf, Trouble> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || name.len() > 100 || !name.chars().all(allowed) {
        let shown: String = "shm://".chars().chain(name.chars().take(120)).collect();
        let message =
            "store must be 'shm://NAME' with a NAME of 1 to 100 letters, digits, '.', '_' and '-' that begins";
        return Err(Trouble::Name(format!("{message} with a letter or digit, not {shown:?}")));
    }
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() {
        memory.to_path_buf()
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
    };
    Ok(directory.join(format!("penstock-{}-{name}", rustix::process::geteuid().as_raw())))
}

impl Mapped {
    /// The file at `path`, made if there is none. `make` writes what it begins with.
    ///
    /// # Errors
    /// [`Trouble::Unusable`] when it cannot be had or is not a limiter's.
    pub fn open(path: &Path, make: impl Fn(&Self) -> io::Result<()>) -> Result<Arc<Self>, Trouble> {
        let mut files = FILES.lock();
        ANY.store(true, Ordering::Relaxed);
        // Without members here there is no lock to let go of, and without a thread that listens nobody to come back to it.
        files.retain(|_, known| Arc::strong_count(known) > 1 || known.watch.runs());
        // Never opened twice, see above; so it is looked at by its name first.
        if let Ok(found) = std::fs::symlink_metadata(path)
            && let Some(known) = files.get(&(found.dev(), found.ino()))
        {
            known.check()?;
            return Ok(Arc::clone(known));
        }
        let since = Instant::now();
        loop {
            let failed = |error: &io::Error| unopened(path, error);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
                .open(path)
                .map_err(|error| failed(&error))?;
            let found = file.metadata().map_err(|error| failed(&error))?;
            private(path, &found)?;
            if found.len() == 0 {
                // Whatever the umask took from the owner; where it cannot be given, others of this owner will say so.
                let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
            }
            if !map::lock_byte(&file, MAKING).map_err(|error| failed(&error))? {
                if since.elapsed() > PATIENCE {
                    return Err(unusable(path, "another process has been making it for 5 seconds"));
                }
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let still = std::fs::symlink_metadata(path).is_ok_and(|now| now.ino() == found.ino());
            if !still {
                continue; // deleted meanwhile: make another
            }
            let (mapped, fresh) = Self::map(path, file)?;
            if let Err(trouble) = mapped.prepare(fresh, make) {
                if fresh {
                    // Nobody has used it, and whoever waits for the lock looks whether it is still there.
                    let _ = std::fs::remove_file(path);
                }
                return Err(trouble);
            }
            map::unlock_byte(&mapped.file, MAKING).map_err(|error| failed(&error))?;
            let mapped = Arc::new(mapped);
            files.insert((found.dev(), found.ino()), Arc::clone(&mapped));
            return Ok(mapped);
        }
    }

    /// Maps it, with the lock for making it held. Gives with it whether it is new.
    fn map(path: &Path, file: File) -> Result<(Self, bool), Trouble> {
        let failed = |error: &io::Error| unusable(path, &format!("it cannot be mapped: {error}"));
        let length = file.metadata().map_err(|error| failed(&error))?.len();
        let fresh = length == 0;
        if fresh {
            file.set_len(BYTES as u64).map_err(|error| failed(&error))?;
        } else if length != BYTES as u64 {
            let what = if length < BYTES as u64 { "truncated" } else { "longer than a limiter's" };
            return Err(unusable(path, &format!("it is {what}: {length} bytes instead of {BYTES}")));
        }
        let map = Map::new(&file).map_err(|error| failed(&error))?;
        let mapped = Self {
            path: path.to_path_buf(),
            file,
            map,
            own: [const { AtomicU64::new(0) }; MEMBERS / 64],
            waiting: AtomicUsize::new(0),
            asked_at: AtomicU64::new(0),
            joining: Mutex::new(()),
            entering: Mutex::new(()),
            watch: super::watch::Watch::default(),
        };
        Ok((mapped, fresh))
    }

    /// Makes it, if nobody has, with the lock for making it held.
    fn prepare(&self, fresh: bool, make: impl Fn(&Self) -> io::Result<()>) -> Result<(), Trouble> {
        // Before the first look: even to read a word that was never written takes memory.
        let no_room = |error: io::Error| {
            let path = self.path.display();
            Trouble::Unusable(format!(
                "the shared memory {path} cannot be made: there is no room for it: {error}. It takes 1.2 MB; delete what \
                 nobody uses beside it, or give that file system more (Docker: --shm-size)"
            ))
        };
        self.reserve(0, layout::ARENAS_AT).map_err(no_room)?;
        for arena in 0..layout::ARENAS {
            self.reserve(layout::arena(arena) + layout::HAUNTED_AT, 1).map_err(no_room)?;
        }
        let magic = self.get(MAGIC_AT);
        if !fresh && magic != MAGIC && magic != 0 {
            return Err(unusable(&self.path, "it is not a limiter's"));
        }
        if self.get(READY_AT) == 1 && magic == MAGIC {
            self.check()?;
            if self.boot() == boot_id() {
                return Ok(());
            }
            // Times of another boot mean nothing in this one, and no process has outlived it.
        }
        self.set(READY_AT, 0);
        let head = (MAGIC_AT..layout::TERMS_AT).chain(layout::WAITS_AT..layout::ARENAS_AT);
        head.for_each(|at| {
            if at != layout::BELL_AT {
                self.set(at, 0);
            }
        });
        self.set(MAGIC_AT, MAGIC);
        self.set(VERSION_AT, VERSION);
        let (low, high) = boot_id();
        self.set(BOOT_AT, low);
        self.set(BOOT_AT + 1, high);
        self.set(CLOCK_AT, whose_clock());
        for arena in 0..layout::ARENAS {
            self.set(layout::arena(arena) + layout::HAUNTED_AT, 0);
        }
        make(self).map_err(no_room)?;
        self.words()[READY_AT].store(1, Ordering::Release);
        Ok(())
    }

    /// Whether it still is what it was.
    fn check(&self) -> Result<(), Trouble> {
        let length = self.file.metadata().map_or(0, |found| found.len());
        if length != BYTES as u64 {
            return Err(unusable(&self.path, &format!("it is truncated: {length} bytes instead of {BYTES}")));
        }
        if self.get(MAGIC_AT) != MAGIC {
            return Err(unusable(&self.path, "it is corrupted: what it begins with was overwritten"));
        }
        let version = self.get(VERSION_AT);
        if version != VERSION {
            let message = format!("its layout is number {version}, and this Penstock knows number {VERSION}");
            return Err(unusable(&self.path, &message));
        }
        if self.boot() == boot_id() && self.get(CLOCK_AT) != whose_clock() {
            let message = "its times are of another clock, that of virtual_time() in one process or of another time \
                           namespace";
            return Err(unusable(&self.path, message));
        }
        Ok(())
    }

    fn get(&self, at: usize) -> u64 {
        self.words()[at].load(Ordering::Acquire)
    }

    fn set(&self, at: usize, word: u64) {
        self.words()[at].store(word, Ordering::Relaxed);
    }

    fn boot(&self) -> (u64, u64) {
        (self.get(BOOT_AT), self.get(BOOT_AT + 1))
    }

    /// Sees to it that there is memory for these words: a file is given it when a word is first read or written, and a
    /// process is ended that does so where there is none left.
    pub fn reserve(&self, from: usize, words: usize) -> io::Result<()> {
        #[cfg(not(target_vendor = "apple"))]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            use rustix::io::Errno;
            match fallocate(&self.file, FallocateFlags::empty(), from as u64 * 8, words as u64 * 8) {
                // Where the file system cannot say, writing will.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        #[cfg(target_vendor = "apple")]
        {
            let _ = (from, words);
            Ok(())
        }
    }

    /// The words of the file.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        self.map.words()
    }

    /// What is rung when others are to look.
    #[inline]
    pub fn bell(&self) -> &AtomicU32 {
        self.map.bell()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn bit(&self, member: usize) -> (&AtomicU64, u64) {
        (&self.own[member / 64 % self.own.len()], 1 << (member % 64))
    }

    /// Whether a member is of this process.
    #[inline]
    pub fn owns(&self, member: usize) -> bool {
        let (bits, bit) = self.bit(member);
        bits.load(Ordering::Relaxed) & bit != 0
    }

    /// Whether a member lives.
    pub fn lives(&self, member: usize) -> bool {
        // Who cannot be asked is taken to live.
        self.owns(member) || map::is_locked(&self.file, LIVING + member as u64).unwrap_or(true)
    }

    /// Lets nobody else join until what it gives is dropped, here or in another process.
    ///
    /// # Errors
    /// [`Trouble::Unusable`] when another does not come to an end.
    pub fn begin_joining(&self) -> Result<Joining<'_>, Trouble> {
        let here = self.entering.lock();
        let since = Instant::now();
        loop {
            match map::lock_byte(&self.file, MAKING) {
                Ok(true) => return Ok(Joining { file: &self.file, _here: here }),
                Ok(false) if since.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
                Ok(false) => return Err(unusable(&self.path, "another process has been joining it for 5 seconds")),
                Err(error) => return Err(unusable(&self.path, &format!("it cannot be locked: {error}"))),
            }
        }
    }

    /// Becomes a member of a number that nobody has; that of one which died with the lock only if there is no other, so
    /// that it is told apart.
    ///
    /// # Errors
    /// [`Trouble::Unusable`] when all numbers are taken, or the system gives no lock.
    pub fn join(&self) -> Result<usize, Trouble> {
        let _one_at_a_time = self.joining.lock();
        let holder = lock::read(&self.words()[LOCK_AT]).owner();
        let others = (0..MEMBERS).filter(|&member| Some(member) != holder);
        for member in others.chain(holder.filter(|&member| member < MEMBERS)) {
            let failed = |error: io::Error| unusable(&self.path, &format!("it cannot be locked: {error}"));
            if !self.owns(member) && map::lock_byte(&self.file, LIVING + member as u64).map_err(failed)? {
                let (bits, bit) = self.bit(member);
                bits.fetch_or(bit, Ordering::SeqCst);
                return Ok(member);
            }
        }
        let path = self.path.display();
        Err(Trouble::Unusable(format!("the shared memory {path} cannot be used: {FULL}")))
    }

    /// Is a member no more.
    pub fn leave(&self, member: usize) {
        let (bits, bit) = self.bit(member);
        let _one_at_a_time = self.joining.lock();
        bits.fetch_and(!bit, Ordering::SeqCst);
        let _ = map::unlock_byte(&self.file, LIVING + member as u64);
        if !self.has_members() {
            self.watch.look();
        }
    }

    /// Whether any member is of this process.
    pub fn has_members(&self) -> bool {
        self.own.iter().any(|bits| bits.load(Ordering::SeqCst) != 0)
    }

    /// Whether it is time to ask again whether others live; only one of those who ask at once is told so.
    pub fn asks(&self, now: Nanos) -> bool {
        let asked_at = self.asked_at.load(Ordering::Relaxed);
        let due = now >= asked_at.saturating_add(ASK_AGAIN) || now < asked_at;
        due && self.asked_at.compare_exchange(asked_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether any other process has a member here that lives.
    pub fn has_company(&self) -> bool {
        super::members::all(self.words()).any(|(member, _)| self.lives(member))
    }
}

/// Why a file could not be opened: nobody can delete in `/dev/shm` what another user has put there under our name.
fn unopened(path: &Path, error: &io::Error) -> Trouble {
    match std::fs::symlink_metadata(path) {
        Ok(found) => private(path, &found).err(),
        Err(_) => None,
    }
    .unwrap_or_else(|| unusable(path, &format!("it cannot be opened: {error}")))
}

/// Owned by us, and by nobody else readable: a regular file of one name.
fn private(path: &Path, found: &std::fs::Metadata) -> Result<(), Trouble> {
    let me = rustix::process::geteuid().as_raw();
    if !found.file_type().is_file() {
        return Err(unusable(path, "it is not a regular file"));
    }
    if found.uid() != me {
        return Err(unusable(path, &format!("it belongs to user {}, and this process runs as {me}", found.uid())));
    }
    if found.nlink() > 1 {
        return Err(unusable(path, &format!("it has {} names, and may be another file of yours", found.nlink())));
    }
    if found.mode() & 0o077 != 0 {
        let mode = found.mode() & 0o777;
        return Err(unusable(path, &format!("others may read or write it (mode {mode:o}; it must be 600)")));
    }
    Ok(())
}

/// Every message about a file says which it is and what to do.
pub fn unusable(path: &Path, why: &str) -> Trouble {
    let path = path.display();
    Trouble::Unusable(format!(
        "the shared memory {path} cannot be used: {why}. Stop all processes that use it and delete the file; the next \
         limiter makes it anew"
    ))
}

/// Whose clock this process has: 0 is the host's. One of another time namespace is so many nanoseconds ahead of it.
fn whose_clock() -> u64 {
    let ahead = |text: String| -> Option<u64> {
        let mut parts = text.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
        let (seconds, part): (i64, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(seconds.wrapping_mul(1_000_000_000).wrapping_add(part).cast_unsigned())
    };
    match clock::whose() {
        0 => std::fs::read_to_string("/proc/self/timens_offsets").ok().and_then(ahead).unwrap_or(0),
        virtual_ => virtual_,
    }
}

/// Of which boot of the machine this is.
#[cfg(target_os = "linux")]
fn boot_id() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).unwrap_or(0);
    #[allow(clippy::cast_possible_truncation)] // both halves, on purpose
    let halves = (number as u64, (number >> 64) as u64);
    halves
}

/// Of which boot of the machine this is: when it was, to the minute, as the clocks tell.
#[cfg(not(target_os = "linux"))]
fn boot_id() -> (u64, u64) {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let booted = since_1970.as_secs().saturating_sub(clock::host() / clock::SECOND);
    (booted / 600, 1)
}
