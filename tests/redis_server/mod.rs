//! A real `redis-server` on a free port, for one test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use penstock::store::redis::wire::{Answer, Done, Limits, Message};
use penstock::store::redis::{SCRIPT, key};

/// The server to start: another version, or Valkey, if `PENSTOCK_REDIS_SERVER` names it.
fn program() -> String {
    std::env::var("PENSTOCK_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// A server that keeps nothing on disk and ends with the test.
pub struct Server {
    process: Child,
    /// Where it listens.
    pub port: u16,
}

impl Server {
    pub fn start() -> Self {
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let port_text = port.to_string();
            let mut process = Command::new(program())
                .args([
                    "--port",
                    &port_text,
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--dir",
                    "/tmp",
                ])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server is installed by .ci/run");
            let until = Instant::now() + Duration::from_secs(20);
            while Instant::now() < until && process.try_wait().unwrap().is_none() {
                let told = redis::Client::open(format!("redis://127.0.0.1:{port}"))
                    .and_then(|client| redis::cmd("INFO").arg("server").query::<String>(&mut client.get_connection()?));
                // Another may have been quicker to take the port.
                if told.is_ok_and(|told| told.lines().any(|line| line == format!("process_id:{}", process.id()))) {
                    return Self { process, port };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("no redis-server could be started");
    }

    pub fn connect(&self) -> redis::Connection {
        redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap().get_connection().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process that talks to the script, at times that the test says.
pub struct Process {
    connection: redis::Connection,
    limiter: String,
    pub message: Message,
}

impl Process {
    /// Registered at `now`.
    pub fn join(server: &Server, limiter: &str, name: &str, limits: Limits, now: i64) -> Self {
        let message = Message {
            process: name.to_owned(),
            epoch: 1,
            lease: 10_000_000,
            limits,
            fresh_limits: true,
            ..Message::default()
        };
        let mut process = Self { connection: server.connect(), limiter: limiter.to_owned(), message };
        process.register(now);
        process.message.fresh_limits = false;
        process
    }

    pub fn register(&mut self, now: i64) -> Done {
        self.message.register = true;
        let done = self.say(now).expect("who registers is known");
        self.message.register = false;
        self.message.seen = true;
        done
    }

    /// Says what the message says, at `now`; nothing if nobody knows this process.
    pub fn say(&mut self, now: i64) -> Option<Done> {
        self.message.clock = Some(now);
        let values: Vec<i64> = self.run().unwrap();
        let asked = self.message.asks.len();
        self.message.asks.clear();
        self.message.settles.clear();
        self.message.cooldowns.clear();
        self.message.restores.clear();
        self.message.counted.clear();
        self.message.debits.clear();
        self.message.learned.clear();
        match Answer::decode(&values, asked).unwrap() {
            Answer::Done(done) => {
                self.message.edition = done.edition;
                Some(done)
            }
            Answer::Unknown => None,
        }
    }

    pub fn run(&mut self) -> redis::RedisResult<Vec<i64>> {
        let script = redis::Script::new(SCRIPT);
        let mut invocation = script.prepare_invoke();
        invocation.key(key(&self.limiter)).arg(self.message.encode()).invoke(&mut self.connection)
    }
}

impl Process {
    /// One that has not said anything yet.
    pub fn unregistered(server: &Server, limiter: &str, message: Message) -> Self {
        Self { connection: server.connect(), limiter: limiter.to_owned(), message }
    }
}
