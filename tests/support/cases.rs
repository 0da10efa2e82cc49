//! The cases of the property tests: the same in every run, others where they are asked for.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// So many cases, the same in every run. `PROPTEST_RNG_SEED` asks for others, `PROPTEST_CASES` for more; `make fuzz` does
/// both. A case that failed becomes a test of its own.
pub fn cases(cases: u32) -> ProptestConfig {
    let told = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let rng_seed = match told.rng_seed {
        RngSeed::Random => RngSeed::Fixed(7),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { told.cases } else { cases };
    ProptestConfig { cases, rng_seed, ..told }
}
