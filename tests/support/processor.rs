//! Time as a machine that does other things, or stands still, does not make it longer.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What this thread has used of a processor so far.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}
