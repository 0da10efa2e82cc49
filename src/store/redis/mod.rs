//! The ledger of a limiter in Redis, shared by processes on any number of hosts.
//!
//! One script decides ([`wire`] says what goes in and comes out), so that a batch of calls costs one trip. A thread with
//! an event loop of its own ([`thread`]) talks to the servers; nothing of it exists before the first limiter with such a
//! store is used, and no other store touches it. Each limiter has a [`link::Link`] to a task there ([`member`]): what is
//! to be asked goes out, what was decided comes back, and a [`bell::Bell`] tells whoever sleeps.
//!
//! Keys, failure modes and promises are documented in `docs/redis.md`.

pub mod address;
pub mod bell;
pub mod client;
pub mod link;
pub mod member;
pub mod thread;
pub mod wire;

/// The script.
pub const SCRIPT: &str = include_str!("admit.lua");

/// The commands that it uses.
const COMMANDS: [&str; 8] = ["EXISTS", "HDEL", "HGET", "HMGET", "HSET", "PEXPIRE", "PUBLISH", "TIME"];

/// The key of a limiter, with a hash tag of its own.
pub fn key(limiter: &str) -> String {
    // Braces would end the tag early.
    let name = limiter.replace('%', "%25").replace('{', "%7B").replace('}', "%7D");
    format!("penstock:{{{name}}}")
}

/// The channel on which a process is told that a slot is free for it.
pub fn channel(limiter: &str, process: &str) -> String {
    format!("{}:{process}", key(limiter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_limiter_has_a_hash_tag() {
        assert_eq!(key("a}b{c"), "penstock:{a%7Db%7Bc}");
        assert_eq!(key("gpt-4o"), "penstock:{gpt-4o}");
        assert_eq!(channel("x", "7-1"), "penstock:{x}:7-1");
    }

    /// Redis 6.2 is promised: every command of the script is older.
    #[test]
    fn the_script_uses_commands_of_redis_6_and_no_keys_but_its_own() {
        let commands: std::collections::BTreeSet<_> =
            SCRIPT.split("redis.call('").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
        assert_eq!(Vec::from_iter(commands), COMMANDS);
        assert!(!SCRIPT.contains("KEYS[2]"));
    }
}
