//! Drivers of infrastructure tools. Runs the tool that the user has, reads what it says; decides nothing and keeps nothing.
//!
//! [`terraform`] drives Terraform and OpenTofu.

pub mod terraform;
