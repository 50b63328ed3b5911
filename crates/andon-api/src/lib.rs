//! JSON API, OFREP, git routes, login and roles. No HTML.
