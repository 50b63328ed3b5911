//! Git by its own binary: hosting over smart HTTP, speculative merges, landing by compare-and-swap. No policy.
