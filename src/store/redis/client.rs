//! One connection, to a server or to a cluster: runs the script, and says what went wrong.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionInfo, ErrorKind, PushInfo, RedisError,
    ServerErrorKind, TlsCertificates, cluster::ClusterClient,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::address::{Address, Tls};
use super::{COMMANDS, SCRIPT};

/// How long a connection may take to be made.
pub const CONNECT: Duration = Duration::from_secs(1);
/// How long those to a cluster may take: first to one of the nodes that the URL names, then to those that it names, of which one
/// may be silent and is waited for.
const CONNECT_CLUSTER: Duration = Duration::from_secs(2);
/// After this time without a connection by one node of a cluster the next is tried beside it.
const NEXT_NODE: Duration = Duration::from_millis(150);
/// How long an answer may take.
pub const ANSWER: Duration = Duration::from_secs(1);

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In words.
    pub why: Arc<str>,
    /// Whether only a change of the configuration can mend it.
    pub misconfigured: bool,
}

impl Failure {
    fn outage(why: &str) -> Self {
        Self { why: why.into(), misconfigured: false }
    }

    /// An answer that nobody understands.
    pub fn malformed() -> Self {
        Self::outage("its answer is none of Penstock's script: do versions of Penstock differ?")
    }

    fn silent(what: &str, limit: Duration) -> Self {
        Self::outage(&format!("no {what} within {} s", limit.as_secs_f64()))
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        let misconfigured = match error.kind() {
            ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::RESP3NotSupported
            | ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::CrossSlot) => true,
            _ => matches!(code, "WRONGPASS" | "NOAUTH" | "WRONGTYPE" | "PENSTOCK" | "NOPERM" | "DENIED"),
        };
        // A script that runs into a key of another type says so inside of another error.
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|&word| text.contains(word));
        let access = ["WRONGTYPE", "WRONGPASS", "NOAUTH", "NOPERM", "no permissions", "DB index is out of range"];
        // A command that was renamed, or that the user may not use, of the script's or of ours.
        let (renamed, unnamed) = (["unknown command"], ["Unknown Redis command", "can't run this command"]);
        let tls = ["certificate", "fatal alert", "InvalidContentType"];
        let misconfigured = misconfigured || says(&access) || says(&renamed) || says(&unnamed) || says(&tls);
        let why = if says(&unnamed) { format!("{text} (it needs {})", COMMANDS.join(", ")) } else { text };
        Self { why: why.into(), misconfigured }
    }
}

/// The files of certificates, as they are now.
fn certificates(tls: &Tls) -> Result<TlsCertificates, Failure> {
    let read = |what: &str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| Failure {
            why: format!("{what} {} cannot be read: {error}", path.display()).into(),
            misconfigured: true,
        })
    };
    let root_cert = tls.authorities.as_ref().map(|path| read("ssl_ca_certs", path)).transpose()?;
    let client_tls = match &tls.own {
        None => None,
        Some((certificate, key)) => {
            let (client_cert, client_key) = (read("ssl_certfile", certificate)?, read("ssl_keyfile", key)?);
            Some(ClientTlsConfig { client_cert, client_key })
        }
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What is heard on a connection without a question.
pub type Pushes = UnboundedReceiver<PushInfo>;

async fn open(address: &Address, channel: &str) -> Result<(Connection, Pushes), Failure> {
    let certificates = if address.tls == Tls::default() { None } else { Some(certificates(&address.tls)?) };
    let mut waiting = address.nodes.clone();
    if waiting.is_empty() {
        return Err(Failure::outage("there is no address"));
    }
    // Not everybody asks the same node of a cluster.
    let first = RandomState::new().hash_one(channel) % waiting.len() as u64;
    waiting.rotate_left(usize::try_from(first).unwrap_or_default());
    let (mut waiting, mut attempts, mut failed) = (waiting.into_iter(), JoinSet::new(), None::<Failure>);
    loop {
        if let Some(node) = waiting.next() {
            let (certificates, channel) = (certificates.clone(), channel.to_owned());
            if address.cluster {
                attempts.spawn(async move { open_cluster(node, certificates, &channel).await });
            } else {
                attempts.spawn(async move { open_one(node, certificates, &channel).await });
            }
        }
        let pause = if waiting.len() > 0 { NEXT_NODE } else { CONNECT_CLUSTER };
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(failure)) if failed.as_ref().is_none_or(|failed| !failed.misconfigured) => failed = Some(failure),
                _ => {}
            },
            () = tokio::time::sleep(pause) => {}
        }
        if attempts.is_empty() && waiting.len() == 0 {
            return Err(failed.unwrap_or_else(Failure::malformed));
        }
    }
}

/// Connects to a cluster by one of its nodes.
async fn open_cluster(
    node: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    channel: &str,
) -> Result<(Connection, Pushes), Failure> {
    let (to_us, pushes) = unbounded_channel();
    let builder = ClusterClient::builder([node]);
    let builder = if let Some(certificates) = certificates { builder.certs(certificates) } else { builder };
    let client = builder
        .use_protocol(redis::ProtocolVersion::RESP3)
        .connection_timeout(CONNECT)
        .response_timeout(2 * ANSWER)
        .retries(3)
        .max_retry_wait(100)
        .push_sender(to_us)
        .build()?;
    let mut connection = client.get_async_connection().await?;
    connection.subscribe(channel).await?;
    Ok((Connection::Cluster(connection), pushes))
}

async fn open_one(
    node: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    channel: &str,
) -> Result<(Connection, Pushes), Failure> {
    let (to_us, pushes) = unbounded_channel();
    let config = AsyncConnectionConfig::new()
        // What is said of either is said here.
        .set_connection_timeout(Some(2 * CONNECT))
        .set_response_timeout(Some(2 * ANSWER))
        .set_push_sender(to_us);
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(node, certificates),
        None => Client::open(node),
    }?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    connection.subscribe(channel).await?;
    Ok((Connection::One(connection), pushes))
}

/// A connection.
#[derive(Clone)]
pub struct Session {
    connection: Connection,
    key: Arc<str>,
    digest: Arc<str>,
}

impl Session {
    /// Connects, and listens to `channel`; gives where what comes there is to be heard.
    ///
    /// # Errors
    /// When there is no connection within [`CONNECT`], or twice as long to a cluster.
    pub async fn connect(address: &Address, key: &Arc<str>, channel: &str) -> Result<(Self, Pushes), Failure> {
        let limit = if address.cluster { CONNECT_CLUSTER } else { CONNECT };
        let connecting = async {
            let (connection, pushes) = open(address, channel).await?;
            let digest = redis::Script::new(SCRIPT).get_hash().into();
            let mut session = Self { connection, key: Arc::clone(key), digest };
            session.try_out().await?;
            Ok((session, pushes))
        };
        let connected = tokio::time::timeout(limit, connecting).await;
        // A server of Redis that is spoken to in TLS, and does not expect it, waits for more.
        let what = if address.secure { "connection with TLS" } else { "connection" };
        connected.unwrap_or_else(|_| Err(Failure::silent(what, limit)))
    }

    /// Whether scripts may be run at all. A server that has no such command repeats what it was given when it says so, and of a
    /// message nobody could read that.
    async fn try_out(&mut self) -> Result<(), Failure> {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg("0".repeat(40)).arg(1).arg(&*self.key);
        match self.request(&command).await {
            Err(error) if error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Runs the script with a message.
    ///
    /// # Errors
    /// When there is no answer within [`ANSWER`], or the answer is an error.
    pub async fn run(&mut self, message: Vec<u8>) -> Result<Vec<i64>, Failure> {
        let answer = tokio::time::timeout(ANSWER, self.evaluate(&message)).await;
        answer.unwrap_or_else(|_| Err(Failure::silent("answer", ANSWER)))
    }

    async fn evaluate(&mut self, message: &[u8]) -> Result<Vec<i64>, Failure> {
        let first = self.send("EVALSHA", &self.digest.clone(), message).await;
        let answer = match first {
            // The server has forgotten the script: it was restarted, or told to.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send("EVAL", SCRIPT, message).await
            }
            answer => answer,
        };
        redis::from_redis_value(answer?).map_err(|_| Failure::malformed())
    }

    async fn send(&mut self, how: &str, script: &str, message: &[u8]) -> Result<redis::Value, RedisError> {
        let mut command = Cmd::new();
        command.arg(how).arg(script).arg(1).arg(&*self.key).arg(message);
        self.request(&command).await
    }

    async fn request(&mut self, command: &Cmd) -> Result<redis::Value, RedisError> {
        match &mut self.connection {
            Connection::One(connection) => connection.req_packed_command(command).await,
            Connection::Cluster(connection) => connection.req_packed_command(command).await,
        }
        .and_then(redis::Value::extract_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &str) -> Failure {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        Failure::from(value.extract_error().unwrap_err())
    }

    /// As servers write them: an outage passes by itself, and of the others only somebody's hand can help.
    #[test]
    fn what_a_server_says_is_an_outage_or_a_mistake_and_is_handed_on() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN The cluster is down",
            "CLUSTERDOWN Hash slot not served",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
            "READONLY You can't write against a read only replica.",
            "READONLY You can't write against a read only replica. script: 0f, on @user_script:1.",
            "OOM command not allowed when used memory > 'maxmemory'. script: 0f, on @user_script:512.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR Error running script (call to f_0f): @user_script:1: Script killed by user with SCRIPT KILL...",
            "ERR max number of clients reached",
            "TRYAGAIN Multiple keys request during rehashing of slot",
        ] {
            let Failure { why, misconfigured } = failure(line);
            assert!(!misconfigured, "{line}");
            let code = line.split(' ').find(|word| *word != "ERR").unwrap();
            assert!(why.to_lowercase().contains(&code.to_lowercase()), "{why}");
        }
        for (line, names) in [
            ("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS"),
            ("NOAUTH Authentication required.", "NOAUTH"),
            ("NOPERM this user has no permissions to run the 'evalsha' command", "'evalsha'"),
            ("NOPERM this user has no permissions to access one of the channels used as arguments", "channels"),
            ("ERR The user executing the script can't run this command or subcommand script: 0f", "needs EXISTS, HDEL"),
            ("DENIED Redis is running in protected mode because protected mode is enabled", "protected mode"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value script: 0f", "WRONGTYPE"),
            ("ERR unknown command 'EVALSHA', with args beginning with: '0f' '1'", "EVALSHA"),
            ("ERR Unknown Redis command called from script script: 0f, on @user_script:60.", "PUBLISH, TIME)"),
            ("CROSSSLOT Keys in request don't hash to the same slot", "CROSSSLOT"),
            ("ERR DB index is out of range", "DB index"),
            ("PENSTOCK the key penstock:{x} holds something else than the state of a limiter", "penstock:{x}"),
        ] {
            let Failure { why, misconfigured } = failure(line);
            assert!(misconfigured, "{line}");
            assert!(why.to_lowercase().contains(&names.to_lowercase()), "{why}");
        }
    }
}
