//! What attributes a resource has, and what they say to Terraform. Holds no values.

use crate::protocol;

/// Of what type an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// Yes or no.
    Bool,
    /// Texts by name.
    Texts,
}

/// An attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    kind: Kind,
    description: &'static str,
    required: bool,
    optional: bool,
    /// The provider gives it where a person does not.
    pub computed: bool,
    sensitive: bool,
    /// Changed only by making the thing anew.
    pub anew: bool,
}

impl Attribute {
    /// A person gives it.
    pub const fn required(name: &'static str, kind: Kind, description: &'static str) -> Attribute {
        let (optional, computed, sensitive, anew) = (false, false, false, false);
        Attribute { name, kind, description, required: true, optional, computed, sensitive, anew }
    }

    /// A person may give it.
    pub const fn optional(name: &'static str, kind: Kind, description: &'static str) -> Attribute {
        Attribute { required: false, optional: true, ..Attribute::required(name, kind, description) }
    }

    /// The provider gives it.
    pub const fn computed(name: &'static str, kind: Kind, description: &'static str) -> Attribute {
        Attribute { required: false, computed: true, ..Attribute::required(name, kind, description) }
    }

    /// A person may give it, else the provider does.
    pub const fn or_computed(mut self) -> Attribute {
        self.computed = true;
        self
    }

    /// Never shown.
    pub const fn sensitive(mut self) -> Attribute {
        self.sensitive = true;
        self
    }

    /// Changed only by making the thing anew.
    pub const fn anew(mut self) -> Attribute {
        self.anew = true;
        self
    }

    fn said(&self) -> protocol::Attribute {
        let kind: &[u8] = match self.kind {
            Kind::Text => br#""string""#,
            Kind::Number => br#""number""#,
            Kind::Bool => br#""bool""#,
            Kind::Texts => br#"["map","string"]"#,
        };
        protocol::Attribute {
            name: self.name.to_owned(),
            r#type: kind.to_owned(),
            description: self.description.to_owned(),
            required: self.required,
            optional: self.optional,
            computed: self.computed,
            sensitive: self.sensitive,
        }
    }
}

/// The schema as Terraform reads it.
pub fn said(attributes: &[Attribute], description: &str) -> protocol::Schema {
    let attributes = attributes.iter().map(Attribute::said).collect();
    let block = protocol::Block { version: 0, attributes, description: description.to_owned() };
    protocol::Schema { version: 0, block: Some(block) }
}
