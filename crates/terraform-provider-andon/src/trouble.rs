//! What went wrong, as Terraform shows it: a summary, and what to do as its detail. Sends nothing.

use crate::protocol::{Diagnostic, at};

/// Something that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What failed and why.
    pub summary: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The attribute at fault.
    pub attribute: Option<&'static str>,
    /// There is no such thing on the server.
    pub missing: bool,
}

impl Trouble {
    /// Without a hint.
    pub fn new(summary: String) -> Trouble {
        Trouble { summary, hint: String::new(), attribute: None, missing: false }
    }

    /// With what to do.
    pub fn hint(mut self, hint: &str) -> Trouble {
        self.hint = hint.to_owned();
        self
    }

    /// About an attribute.
    pub fn at(mut self, attribute: &'static str) -> Trouble {
        self.attribute = Some(attribute);
        self
    }
}

impl From<Trouble> for Diagnostic {
    fn from(trouble: Trouble) -> Diagnostic {
        // The first letter is Terraform's own way.
        let mut letters = trouble.summary.chars();
        let summary = letters.next().map(|first| first.to_uppercase().chain(letters).collect());
        let detail = if trouble.hint.is_empty() { String::new() } else { format!("hint: {}", trouble.hint) };
        Diagnostic {
            severity: 1,
            summary: summary.unwrap_or_default(),
            detail,
            attribute: trouble.attribute.map(at),
        }
    }
}
