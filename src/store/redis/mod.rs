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

/// The keys of a limiter: its state, its windows, its processes. They share one hash tag, so that a cluster keeps them
/// together.
pub fn keys(limiter: &str) -> [String; 3] {
    // Braces would end the tag early.
    let name = limiter.replace('%', "%25").replace('{', "%7B").replace('}', "%7D");
    let state = format!("penstock:{{{name}}}");
    [state.clone(), format!("{state}:windows"), format!("{state}:processes")]
}

/// The channel on which a process is told that a slot is free for it.
pub fn channel(limiter: &str, process: &str) -> String {
    let [state, ..] = keys(limiter);
    format!("{state}:{process}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_limiter_have_one_hash_tag() {
        assert_eq!(keys("a}b{c")[1], "penstock:{a%7Db%7Bc}:windows");
        assert!(keys("gpt-4o").iter().all(|key| key.starts_with("penstock:{gpt-4o}")));
        assert_eq!(channel("x", "7-1"), "penstock:{x}:7-1");
    }
}
