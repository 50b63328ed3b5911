//! The vocabulary: typed ids, validated names and the line events that stations exchange. No IO, no clock.
