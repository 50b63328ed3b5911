//! Runs instances of services as supervised processes that outlive the server. No release policy.
