//! What becomes of every column in a copy of real data: rules in, SQL out, or the names of the columns that no rule judges. Runs none of it.
//!
//! Values are replaced by ones made from a keyed hash: the same value becomes the same everywhere, so that rows still find each other, and
//! nobody without the key can try values out. The key is the setting `andon.mask_key` of the session that runs the statements.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// What becomes of a column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Nothing: it says nothing about anybody.
    Keep,
    /// Emptied.
    Null,
    /// 32 hexadecimal digits made from it.
    Hash,
    /// An address that nobody has.
    Email,
    /// A made-up name.
    Name,
    /// A number that nobody has.
    Phone,
    /// The same for all.
    Constant(String),
}

/// What becomes of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TableRule {
    /// All of it alike.
    Whole(Whole),
    /// Column by column.
    Columns(BTreeMap<String, Rule>),
}

/// All of a table alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whole {
    /// Its rows are not copied on.
    Truncate,
}

/// A file of rules. Tables outside of the schema `public` are named `SCHEMA.TABLE`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// By table.
    #[serde(default)]
    pub tables: BTreeMap<String, TableRule>,
}

/// A column as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Schema.
    pub schema: String,
    /// Table.
    pub table: String,
    /// Name.
    pub name: String,
    /// `text`, `character varying(80)`, `integer`.
    pub kind: String,
    /// Characters that fit; none: any number.
    pub length: Option<u32>,
    /// Whether it may be empty.
    pub nullable: bool,
    /// Whether the database computes it.
    pub generated: bool,
}

impl Column {
    fn of(&self) -> String {
        match self.schema.as_str() {
            "public" => self.table.clone(),
            schema => format!("{schema}.{}", self.table),
        }
    }

    fn full(&self) -> String {
        format!("{}.{}", self.of(), self.name)
    }
}

/// A name or a value as SQL has them.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(value: &str) -> String {
    // E'' reads backslashes whatever the server's settings are.
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Why a copy is not masked: every column that is judged by no rule or by one that does not fit it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}\nhint: say in the mask file of each column what becomes of it: keep, null, hash, email, name, phone or {{ constant: VALUE }}", .0.join("; "))]
pub struct Unclear(pub Vec<String>);

/// The statements that mask a copy, in order.
pub fn plan(rules: &Rules, columns: &[Column]) -> Result<Vec<String>, Unclear> {
    let mut unclear = Vec::new();
    let mut sets: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut emptied: BTreeSet<(&str, &str)> = BTreeSet::new();
    for column in columns {
        let place = (column.schema.as_str(), column.table.as_str());
        let rule = match rules.tables.get(&column.of()) {
            Some(TableRule::Whole(Whole::Truncate)) => {
                emptied.insert(place);
                continue;
            }
            Some(TableRule::Columns(by_name)) => by_name.get(&column.name),
            None => None,
        };
        match rule {
            // The database computes it anew from columns that are judged.
            _ if column.generated => {}
            None => unclear.push(format!("no rule judges {}", column.full())),
            Some(rule) => match replacement(rule, column) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    let set = format!("{} = {value}", identifier(&column.name));
                    sets.entry(place).or_default().push(set);
                }
                Err(why) => unclear.push(format!("{} of {}", why, column.full())),
            },
        }
    }
    for (table, rule) in &rules.tables {
        let mut there = columns.iter().filter(|column| &column.of() == table).peekable();
        if there.peek().is_none() {
            unclear.push(format!("there is no table {table}"));
            continue;
        }
        let TableRule::Columns(by_name) = rule else { continue };
        let there: BTreeSet<&str> = there.map(|column| column.name.as_str()).collect();
        let gone = by_name.keys().filter(|name| !there.contains(name.as_str()));
        unclear.extend(gone.map(|name| format!("there is no column {table}.{name}")));
    }
    if !unclear.is_empty() {
        return Err(Unclear(unclear));
    }
    let table = |(schema, name): &(&str, &str)| format!("{}.{}", identifier(schema), identifier(name));
    let mut statements = Vec::new();
    if !emptied.is_empty() {
        let tables: Vec<String> = emptied.iter().map(table).collect();
        statements.push(format!("TRUNCATE {}", tables.join(", ")));
    }
    statements
        .extend(sets.iter().map(|(place, sets)| format!("UPDATE {} SET {}", table(place), sets.join(", "))));
    Ok(statements)
}

/// What stands in a column afterwards; none: what stood there.
fn replacement(rule: &Rule, column: &Column) -> Result<Option<String>, String> {
    let text = ["text", "character", "varchar", "bpchar", "citext", "name"];
    let is_text = text.iter().any(|kind| column.kind.starts_with(kind)) && !column.kind.ends_with("[]");
    let made = |value: String| {
        if !is_text {
            return Err(format!("{rule:?} makes text and does not fit the {}", column.kind));
        }
        // What is empty stays so: that somebody left it out is kept.
        let column_name = identifier(&column.name);
        let cut = column.length.map_or(value.clone(), |length| format!("left({value}, {length})"));
        Ok(Some(format!("CASE WHEN {column_name} IS NULL THEN NULL ELSE ({cut})::{} END", column.kind)))
    };
    let hash = hash(&identifier(&column.name));
    match rule {
        Rule::Keep => Ok(None),
        Rule::Null if !column.nullable => Err("null does not fit the type (NOT NULL)".to_owned()),
        Rule::Null => Ok(Some("NULL".into())),
        Rule::Hash => made(format!("left({hash}, 32)")),
        Rule::Email => made(format!("left({hash}, 20) || '@example.invalid'")),
        Rule::Name => made(format!(
            "{} || ' ' || initcap(translate(left({hash}, 12), '0123456789', 'ghijklmnop'))",
            first_name(&hash)
        )),
        Rule::Phone => made(format!("'+999' || translate(left({hash}, 14), 'abcdef', '012345')")),
        Rule::Constant(value) => Ok(Some(format!("{}::{}", literal(value), column.kind))),
    }
}

fn hash(column: &str) -> String {
    let key = "current_setting('andon.mask_key')";
    let inner = format!("encode(sha256(convert_to({key} || {column}::text, 'UTF8')), 'hex')");
    format!("encode(sha256(convert_to({key} || {inner}, 'UTF8')), 'hex')")
}

fn first_name(hash: &str) -> String {
    const NAMES: [&str; 16] = [
        "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo", "Mia",
        "Nils", "Oda", "Paul",
    ];
    let names = NAMES.map(|name| format!("'{name}'")).join(",");
    format!("(ARRAY[{names}])[1 + strpos('0123456789abcdef', right({hash}, 1)) % 16]")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(name: &str, kind: &str) -> Column {
        Column {
            schema: "public".into(),
            table: "users".into(),
            name: name.into(),
            kind: kind.into(),
            length: None,
            nullable: false,
            generated: false,
        }
    }

    fn rules(columns: &[(&str, Rule)]) -> Rules {
        let columns = columns.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect();
        Rules { tables: [("users".to_owned(), TableRule::Columns(columns))].into() }
    }

    #[test]
    fn a_column_that_no_rule_judges_is_named_and_nothing_is_masked() {
        let columns = [column("id", "integer"), column("email", "text"), column("iban", "text")];
        let rules = rules(&[("id", Rule::Keep), ("email", Rule::Email)]);
        let why = plan(&rules, &columns).unwrap_err().to_string();
        assert!(why.contains("no rule judges users.iban") && !why.contains("users.email"), "{why}");
        assert!(plan(&rules, &columns[..2]).is_ok());
    }

    #[test]
    fn a_rule_that_does_not_fit_or_is_about_nothing_is_named() {
        let columns = [column("id", "integer"), column("name", "text")];
        for (rules, says) in [
            (rules(&[("id", Rule::Hash), ("name", Rule::Keep)]), "users.id"),
            (rules(&[("id", Rule::Keep), ("name", Rule::Null)]), "users.name"),
            (rules(&[("id", Rule::Keep), ("name", Rule::Keep), ("old", Rule::Keep)]), "no column users.old"),
        ] {
            let why = plan(&rules, &columns).unwrap_err().to_string();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn what_is_kept_is_not_touched_and_what_is_emptied_is_emptied_at_once() {
        let columns = [column("id", "integer")];
        assert_eq!(plan(&rules(&[("id", Rule::Keep)]), &columns), Ok(vec![]));
        let emptied = Rules { tables: [("users".to_owned(), TableRule::Whole(Whole::Truncate))].into() };
        assert_eq!(plan(&emptied, &columns), Ok(vec!["TRUNCATE \"public\".\"users\"".to_owned()]));
    }

    proptest! {
        #[test]
        fn no_name_and_no_value_ends_its_quotes(name in "\\PC{1,12}", value in "\\PC{0,20}") {
            // Read back as SQL reads them: what is between the quotes is one token.
            let quoted = identifier(&name);
            prop_assert_eq!(quoted[1..quoted.len() - 1].replace("\"\"", ""), name.replace('"', ""));
            let inner = literal(&value);
            let inner = inner.strip_prefix("E'").and_then(|rest| rest.strip_suffix('\'')).unwrap();
            let mut rest = inner.chars();
            while let Some(c) = rest.next() {
                if c == '\\' || c == '\'' {
                    prop_assert_eq!(rest.next(), Some(c));
                }
            }
        }
    }
}
