//! The commands that people and programs may give, and one controller loop per station: load, plan, persist, act.
