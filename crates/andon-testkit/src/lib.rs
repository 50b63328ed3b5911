//! Fakes, builders and contract suites for tests. Never shipped.
