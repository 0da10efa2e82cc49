//! One connection, to a server or to a cluster: runs the script, and says what went wrong.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ErrorKind, PushInfo, RedisError, ServerErrorKind,
    TlsCertificates, cluster::ClusterClient,
};
use tokio::sync::mpsc::UnboundedSender;

use super::SCRIPT;
use super::address::{Address, Tls};

/// How long a connection may take to be made.
pub const CONNECT: Duration = Duration::from_secs(1);
/// How long those to a cluster may take: first to the nodes that the URL names, then to those that they name. Whichever of
/// them is silent is waited for.
const CONNECT_CLUSTER: Duration = Duration::from_secs(3);
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
            _ => matches!(code, "WRONGPASS" | "NOAUTH" | "WRONGTYPE" | "PENSTOCK" | "NOPERM"),
        };
        // A script that runs into a key of another type says so inside of another error.
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|&word| text.contains(word));
        let access = ["WRONGTYPE", "WRONGPASS", "NOAUTH", "NOPERM", "no permissions", "DB index is out of range"];
        let misconfigured =
            misconfigured || says(&access) || says(&["certificate", "fatal alert", "InvalidContentType"]);
        Self { why: text.into(), misconfigured }
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

/// A connection.
#[derive(Clone)]
pub struct Session {
    connection: Connection,
    key: Arc<str>,
    digest: Arc<str>,
}

impl Session {
    /// Connects, and listens to `channel`; what comes there goes to `pushes`.
    ///
    /// # Errors
    /// When there is no connection within [`CONNECT`], or three times as long to a cluster.
    pub async fn connect(
        address: &Address,
        key: &Arc<str>,
        channel: &str,
        pushes: UnboundedSender<PushInfo>,
    ) -> Result<Self, Failure> {
        let limit = if address.cluster { CONNECT_CLUSTER } else { CONNECT };
        let connected = tokio::time::timeout(limit, Self::open(address, channel, pushes)).await;
        // A server of Redis that is spoken to in TLS, and does not expect it, waits for more.
        let what = if address.secure { "connection with TLS" } else { "connection" };
        let connection = connected.unwrap_or_else(|_| Err(Failure::silent(what, limit)))?;
        let digest = redis::Script::new(SCRIPT).get_hash().into();
        Ok(Self { connection, key: Arc::clone(key), digest })
    }

    async fn open(address: &Address, channel: &str, pushes: UnboundedSender<PushInfo>) -> Result<Connection, Failure> {
        let certificates = if address.tls == Tls::default() { None } else { Some(certificates(&address.tls)?) };
        if address.cluster {
            let builder = ClusterClient::builder(address.nodes.clone());
            let builder = if let Some(certificates) = certificates { builder.certs(certificates) } else { builder };
            let client = builder
                .use_protocol(redis::ProtocolVersion::RESP3)
                .connection_timeout(CONNECT)
                .response_timeout(2 * ANSWER)
                .retries(3)
                .max_retry_wait(100)
                .push_sender(pushes)
                .build()?;
            let mut connection = client.get_async_connection().await?;
            connection.subscribe(channel).await?;
            return Ok(Connection::Cluster(connection));
        }
        let Some(node) = address.nodes.first() else { return Err(Failure::outage("there is no address")) };
        let config = AsyncConnectionConfig::new()
            // What is said of either is said here.
            .set_connection_timeout(Some(2 * CONNECT))
            .set_response_timeout(Some(2 * ANSWER))
            .set_push_sender(pushes);
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(node.clone(), certificates),
            None => Client::open(node.clone()),
        }?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(channel).await?;
        Ok(Connection::One(connection))
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
        match &mut self.connection {
            Connection::One(connection) => connection.req_packed_command(&command).await,
            Connection::Cluster(connection) => connection.req_packed_command(&command).await,
        }
        .and_then(redis::Value::extract_error)
    }
}
