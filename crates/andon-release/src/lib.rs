//! Release strategies as state machines, and the immune system's statistics. No sockets, no clock.

pub mod evidence;
