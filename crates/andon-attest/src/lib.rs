//! What the server signs and how it is checked: statements about artifacts, and tokens that say who a job is. Keeps no key and reads no file.
//!
//! [`key`] makes keys and signs, [`dsse`] is the envelope around a statement, [`statement`] what is said, [`check`] whether it may be believed,
//! [`token`] who a job is, [`ledger`] which keys and statements there are, as folds over line events.

pub mod check;
pub mod dsse;
pub mod key;
pub mod ledger;
pub mod statement;
pub mod token;

pub use check::{Doubt, Expected, check};
pub use dsse::Envelope;
pub use key::{Public, Signer};
pub use ledger::{Attestations, Keys};
