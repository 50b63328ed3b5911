//! The file a team writes (andon.yaml), its checks, and the scheduling of its job graph. Runs nothing.
