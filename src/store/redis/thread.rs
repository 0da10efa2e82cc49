//! The one thread that talks to servers of Redis, for all limiters of the process.

use std::future::Future;
use std::io;

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

static THREAD: Mutex<Option<UnboundedSender<Task>>> = Mutex::new(None);

/// Runs a task on the thread, which is started if there is none yet.
///
/// # Errors
/// When the system gives no thread or no event loop.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let mut thread = THREAD.lock();
    let task: Task = match &*thread {
        Some(tasks) => match tasks.send(Box::pin(task)) {
            Ok(()) => return Ok(()),
            Err(unsent) => unsent.0,
        },
        None => Box::pin(task),
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (tasks, mut coming) = unbounded_channel::<Task>();
    let _ = tasks.send(task);
    std::thread::Builder::new().name("penstock-redis".to_owned()).spawn(move || {
        runtime.block_on(async move {
            while let Some(task) = coming.recv().await {
                tokio::spawn(task);
            }
        });
    })?;
    *thread = Some(tasks);
    Ok(())
}

/// Forgets the thread: in a forked child there is none. What it was doing is left where it is.
pub fn disown() {
    std::mem::forget(THREAD.lock().take());
}
