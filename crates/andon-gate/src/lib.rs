//! Plans what is tested together and what lands. No git, no processes.
