//! The L7 data plane: hosts, weights, stickiness, mirroring, draining, golden signals. Knows no store, git or pages.
