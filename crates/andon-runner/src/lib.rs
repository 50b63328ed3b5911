//! Executes jobs as process groups: logs, timeouts, artifacts. Schedules nothing.
