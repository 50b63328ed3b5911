//! DORA metrics and value streams computed from line events. No SQL.
