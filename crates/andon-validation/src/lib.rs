//! Reads test and coverage reports and gives the verdict on a run. No files, no processes.
