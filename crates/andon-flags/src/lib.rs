//! The flag model and its compiled evaluation with flagd's semantics. No HTTP.
