//! The URL of a store.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

/// Where the servers are, and as whom to talk to them.
#[derive(Clone, Debug)]
pub struct Address {
    /// The server; of a cluster, the nodes to ask first.
    pub(super) nodes: Vec<ConnectionInfo>,
    pub(super) cluster: bool,
    /// Whether over TLS.
    pub(super) secure: bool,
    pub(super) tls: Tls,
    shown: String,
    name: Option<String>,
}

/// Files of certificates, in PEM; those of the system where nothing is said. They are read whenever a connection is made, so
/// that they can be renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Who may vouch for the servers.
    pub(super) authorities: Option<PathBuf>,
    /// The certificate that is shown to them, and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
}

/// Why a URL cannot be that of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

/// The schemes that name a store in Redis.
pub const SCHEMES: [&str; 6] = ["redis", "rediss", "redis+unix", "unix", "redis+cluster", "rediss+cluster"];

impl Address {
    /// Whether a URL has one of the schemes that are meant for here.
    pub fn is_one(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
    }

    /// Reads `redis://[user[:password]@]host[:port][/db]`, `rediss://...` for TLS, `unix:///path?db=0`, and
    /// `redis+cluster://host:port,host:port` or `rediss+cluster://...` for a cluster. `?name=NAME` names the limiter;
    /// `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` are files, as redis-py calls them.
    ///
    /// # Errors
    /// When it is no such URL. The message does not show the password.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let shown = without_password(url);
        let wrong = |why: &str| {
            let forms = "redis://HOST:PORT/DB, rediss://..., unix:///PATH or redis+cluster://HOST:PORT,HOST:PORT";
            AddressError(format!("store must be memory://, shm://NAME, {forms}, not {shown:?}: {why}"))
        };
        if is_torn(url) {
            return Err(wrong("in a password /, ? and # are written %2F, %3F and %23"));
        }
        let Query { url, name, files: [authorities, certificate, key] } = queried(url).map_err(|why| wrong(&why))?;
        let url = url.as_str();
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        if !SCHEMES.contains(&scheme) {
            return Err(wrong("the scheme is unknown"));
        }
        let own = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err(wrong("ssl_certfile and ssl_keyfile go together")),
        };
        let tls = Tls { authorities, own };
        let secure = scheme.starts_with("rediss");
        if tls != Tls::default() && !secure {
            return Err(wrong("ssl_ca_certs, ssl_certfile and ssl_keyfile are for rediss:// and rediss+cluster://"));
        }
        let cluster = scheme.ends_with("+cluster");
        let scheme = scheme.trim_end_matches("+cluster");
        let mut nodes = Vec::new();
        if cluster {
            let (whom, rest) = rest.rsplit_once('@').map_or(("", rest), |(whom, rest)| (whom, rest));
            let whom = if whom.is_empty() { String::new() } else { format!("{whom}@") };
            let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
            if !matches!(path, "" | "0") {
                return Err(wrong("a cluster has database 0 only"));
            }
            for host in hosts.split(',') {
                nodes.push(Self::node(&format!("{scheme}://{whom}{host}")).map_err(|why| wrong(&why))?);
            }
        } else {
            nodes.push(Self::node(url).map_err(|why| wrong(&why))?);
        }
        Ok(Self { nodes, cluster, secure, tls, shown, name })
    }

    /// The limiter's name, if the URL says one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn node(url: &str) -> Result<ConnectionInfo, String> {
        // A host is needed: without one every mistake would go to 127.0.0.1.
        let host = url.split_once("://").map_or("", |(_, rest)| rest);
        if host.split(['/', '?']).next().is_some_and(str::is_empty) && !url.contains("unix://") {
            return Err("it has no host".to_owned());
        }
        let info = url.into_connection_info().map_err(|error| error.to_string())?;
        // Pushes, which tell that a slot is free, need the newer protocol.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        Ok(info.set_redis_settings(settings))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What a URL says behind its question mark, and the rest of it.
struct Query {
    url: String,
    name: Option<String>,
    /// Authorities, certificate, key.
    files: [Option<PathBuf>; 3],
}

const FILES: [&str; 3] = ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"];

fn queried(url: &str) -> Result<Query, String> {
    if url.contains('#') {
        return Err("it has a fragment (#...); certificates are always checked, see ssl_ca_certs".to_owned());
    }
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let is_socket = url.starts_with("unix://") || url.starts_with("redis+unix://");
    let (mut kept, mut found) = (Vec::new(), Query { url: String::new(), name: None, files: [None, None, None] });
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key == "name" {
            found.name = Some(unescaped(value)).filter(|value| !value.is_empty());
        } else if let Some(place) = FILES.iter().position(|file| *file == key) {
            if value.is_empty() {
                return Err(format!("{key} names no file"));
            }
            found.files[place] = Some(unescaped(value).into());
        } else if is_socket && ["db", "user", "pass"].contains(&key) {
            kept.push(pair);
        } else {
            let socket = if is_socket { ", db, user, pass" } else { "" };
            return Err(format!("{key} is unknown; known are name, {}{socket}", FILES.join(", ")));
        }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    found.url = format!("{before}{query}");
    Ok(found)
}

/// `%20` as a space.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The URL without what must not be shown: also where it is written so that nobody can tell for sure what is the password.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let is_socket = scheme.ends_with("unix");
    let before = rest.split_once('?').map_or(rest, |(before, _)| before);
    // A password in which a `/` or a `?` was not escaped ends where the last `@` is.
    let end = before.rfind('@').or_else(|| if is_place(before) { None } else { rest.rfind('@') });
    let (whom, rest) = match end.filter(|_| !is_socket) {
        Some(end) => (Some(&rest[..end]), &rest[end + 1..]),
        None => (None, rest),
    };
    let whom = whom.map_or(String::new(), |whom| {
        let user = whom.split(':').next().unwrap_or_default();
        format!("{user}{}@", if whom.contains(':') { ":***" } else { "" })
    });
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    // `unix:///path?pass=...`, and what others call it.
    let is_secret = |key: &str| ["pass", "pw", "secret", "token", "auth"].iter().any(|word| key.contains(word));
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((key, _)) if is_secret(&key.to_lowercase()) => format!("{key}=***"),
        _ => pair.to_owned(),
    });
    let pairs: Vec<_> = pairs.collect();
    format!("{scheme}://{whom}{place}{}{}", if pairs.is_empty() { "" } else { "?" }, pairs.join("&"))
}

/// Whether a password goes on where the hosts should have ended.
fn is_torn(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let (before, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    !scheme.ends_with("unix") && after.contains('@') && !is_place(before)
}

/// Whether it looks like hosts, ports and a database, and nothing else.
fn is_place(text: &str) -> bool {
    let (hosts, _) = text.split_once('/').unwrap_or((text, ""));
    hosts.split(',').all(|host| {
        let port = host.rsplit_once(']').map_or(host, |(_, port)| port).split_once(':').map_or("", |(_, port)| port);
        !host.starts_with(':') && port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_url() {
        for (url, nodes, cluster) in [
            ("redis://localhost", 1, false),
            ("redis://user:secret@10.0.0.1:6380/3", 1, false),
            ("rediss://host", 1, false),
            ("unix:///run/redis.sock?db=2&pass=secret", 1, false),
            ("redis+cluster://a:7000,b:7001", 2, true),
            ("rediss+cluster://user:secret@a,b,c", 3, true),
        ] {
            let address = Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.nodes.len(), address.cluster), (nodes, cluster), "{url}");
            assert!(!address.to_string().contains("secret"), "{address}");
        }
        let address = Address::parse("redis://user:secret@10.0.0.1:6380/3").unwrap();
        assert_eq!(address.to_string(), "redis://user:***@10.0.0.1:6380/3");
        assert_eq!(address.nodes[0].redis_settings().db(), 3);
        let address = Address::parse("redis://h/3?name=gpt").unwrap();
        assert_eq!((address.name(), address.nodes[0].redis_settings().db()), (Some("gpt"), 3));
        let address =
            Address::parse("rediss://h?ssl_ca_certs=/a%20b/%c3%a4.pem&ssl_certfile=c&ssl_keyfile=k%2&name=x").unwrap();
        let own = Some(("c".into(), "k%2".into()));
        assert_eq!(address.tls, Tls { authorities: Some("/a b/ä.pem".into()), own });
        assert_eq!((address.name(), &address.nodes[0].addr().to_string()[..]), (Some("x"), "h:6379"));
        let address = Address::parse("redis://h?name=team%20a%2Fb@c").unwrap();
        assert_eq!((address.name(), &address.to_string()[..]), (Some("team a/b@c"), "redis://h?name=team%20a%2Fb@c"));
    }

    #[test]
    fn passwords_are_escaped_and_hosts_may_be_numbers_of_ipv6() {
        let address = Address::parse("rediss://us%3Aer:p%40ss%2Fw%3Frd@[::1]:6380/2").unwrap();
        let node = &address.nodes[0];
        assert_eq!(
            (node.redis_settings().username(), node.redis_settings().password()),
            (Some("us:er"), Some("p@ss/w?rd"))
        );
        assert_eq!((node.redis_settings().db(), &node.addr().to_string()[..]), (2, "::1:6380"));
        let address = Address::parse("redis+cluster://:p%2Cw@[::1]:7000,[fe80::2]:7001,c").unwrap();
        let places: Vec<_> = address.nodes.iter().map(|node| node.addr().to_string()).collect();
        assert_eq!(places, ["::1:7000", "fe80::2:7001", "c:6379"]);
        assert!(address.nodes.iter().all(|node| node.redis_settings().password() == Some("p,w")));
        let address = Address::parse("unix:///run/r.sock?user=u&pass=a%26b%3Dc&db=1").unwrap();
        assert_eq!(address.nodes[0].redis_settings().password(), Some("a&b=c"));
        assert_eq!(address.to_string(), "unix:///run/r.sock?user=u&pass=***&db=1");
    }

    #[test]
    fn no_secret_is_shown_however_the_url_is_written() {
        for (url, shown) in [
            ("redis://:secret@h", "redis://:***@h"),
            ("redis://u:se/cret@h/0", "redis://u:***@h/0"),
            ("redis://u:se@cret@h/0", "redis://u:***@h/0"),
            ("redis://:se?cret@h/0", "redis://:***@h/0"),
            ("redis://u:se?cret@h/0?name=x", "redis://u:***@h/0?name=x"),
            ("redis+cluster://u:secret@a:1,b:2?name=x", "redis+cluster://u:***@a:1,b:2?name=x"),
            ("redis://h?password=secret&name=x", "redis://h?password=***&name=x"),
            ("rediss://h?PASS=secret", "rediss://h?PASS=***"),
            ("unix:///a@b?pass=secret", "unix:///a@b?pass=***"),
            ("redis://[::1]:1/0?name=a@b", "redis://[::1]:1/0?name=a@b"),
        ] {
            assert_eq!(without_password(url), shown);
            let told = Address::parse(url).map_or_else(|error| error.to_string(), |address| address.to_string());
            assert!(!told.contains("secret") && !told.contains("cret"), "{told}");
        }
    }

    #[test]
    fn what_is_no_url_is_told_and_shows_no_password() {
        for url in [
            "redis",
            "http://x",
            "redis://",
            "redis:///0",
            "redis://:secret@h:99999",
            "redis://h/x",
            "redis+cluster://a/1",
            "redis://h?ssl_ca_certs=/ca.pem",
            "rediss://h?ssl_certfile=/c.pem",
            "rediss://h?ssl_ca_certs=",
            "rediss://h?ssl_cert_reqs=none",
            "rediss://h/#insecure",
            "redis://h?db=3",
        ] {
            let error = Address::parse(url).expect_err(url).to_string();
            assert!(error.starts_with("store must be ") && !error.contains("secret"), "{error}");
        }
    }
}
