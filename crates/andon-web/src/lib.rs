//! Pages, live updates, charts and assets. Writes state only through the commands of andon-line.
//!
//! A page is made of a view of andon-line. [`place`] says which page a path is, [`pages`] draws each of them, [`shell`] puts the cord, the
//! bar and the footer around it. [`act`] takes the forms, [`live`] sends a page again when something happened, [`door`] is how people
//! come in. Who may come in and from where is decided before a request arrives here.

pub mod account;
pub mod act;
pub mod assets;
pub mod chart;
pub mod door;
pub mod hosts;
pub mod live;
pub mod log;
pub mod pages;
pub mod parts;
pub mod place;
pub mod said;
pub mod shell;
pub mod show;
pub mod table;
pub mod trouble;

#[cfg(test)]
mod tests;

pub use table::{Page, pages};
pub use trouble::readable;
