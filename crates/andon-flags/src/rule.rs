//! JsonLogic rules, checked and compiled once into a tree that needs no look-ups by name. Evaluates nothing.

use serde_json::{Map, Value};

/// Nesting that is accepted. Hand-written rules have a tenth of it, and evaluation uses the stack.
pub const DEEPEST: usize = 64;
/// Nodes of one rule; `$ref` can double a rule at every level, so their number is limited too.
pub const LARGEST: usize = 20_000;

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Itself.
    Literal(Value),
    /// A list whose items are rules.
    List(Vec<Rule>),
    /// A value of the context, by path; none of it: the default.
    Var(Vec<String>, Option<Box<Rule>>),
    /// A value whose path is computed.
    VarBy(Box<Rule>, Option<Box<Rule>>),
    /// Condition, value, condition, value, …, otherwise.
    If(Vec<Rule>),
    /// First falsy one, or the last.
    And(Vec<Rule>),
    /// First truthy one, or the last.
    Or(Vec<Rule>),
    /// List, rule for each item, and what to do with it.
    Each(Each, Box<Rule>, Box<Rule>),
    /// List, rule, start.
    Reduce(Box<Rule>, Box<Rule>, Box<Rule>),
    /// What to hash, and the weighted variants.
    Fractional(Option<Box<Rule>>, Vec<Share>),
    /// Anything whose arguments are evaluated first.
    Call(Call, Vec<Rule>),
}

/// What is done with a rule over a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Each {
    /// Every result.
    Map,
    /// Items for which it holds.
    Filter,
    /// Whether it holds for every item, and there are some.
    All,
    /// Whether it holds for no item.
    None,
    /// Whether it holds for any item.
    Some,
}

/// A variant and its weight in `fractional`.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The variant.
    pub variant: Rule,
    /// Its weight; none: 1.
    pub weight: Option<Rule>,
}

/// Operators with evaluated arguments.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "each is named as JsonLogic names it")]
pub enum Call {
    Equal,
    Same,
    NotEqual,
    NotSame,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Not,
    Truthy,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Min,
    Max,
    Cat,
    Substr,
    Merge,
    Missing,
    MissingSome,
    StartsWith,
    EndsWith,
    SemVer,
}

/// A rule, and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The rule.
    pub rule: Rule,
    /// Its result may change with time alone.
    pub uses_clock: bool,
}

/// Compiles a rule; the error says what is wrong, in a sentence. `evaluators` are what `$ref` may name.
pub fn compile(rule: &Value, evaluators: &Map<String, Value>) -> Result<Compiled, String> {
    let mut compiler = Compiler { evaluators, nodes: 0, uses_clock: false };
    let rule = compiler.rule(rule, 0)?;
    Ok(Compiled { rule, uses_clock: compiler.uses_clock })
}

/// The rule with every `$ref` replaced by what it names.
pub fn inline(rule: &Value, evaluators: &Map<String, Value>) -> Result<Value, String> {
    inlined(rule, evaluators, 0, &mut 0)
}

fn inlined(
    rule: &Value,
    evaluators: &Map<String, Value>,
    depth: usize,
    nodes: &mut usize,
) -> Result<Value, String> {
    *nodes += 1;
    if depth > DEEPEST || *nodes > LARGEST {
        return Err(format!(
            "is nested deeper than {DEEPEST} levels or has more than {LARGEST} parts, with every $ref written out"
        ));
    }
    match rule {
        Value::Array(items) => items
            .iter()
            .map(|item| inlined(item, evaluators, depth + 1, nodes))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        Value::Object(map) => {
            if let (1, Some(name)) = (map.len(), map.get("$ref")) {
                return inlined(referenced(name, evaluators)?, evaluators, depth + 1, nodes);
            }
            let entry = |(key, value): (&String, &Value)| {
                Ok((key.clone(), inlined(value, evaluators, depth + 1, nodes)?))
            };
            map.iter().map(entry).collect::<Result<_, String>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

fn referenced<'a>(name: &Value, evaluators: &'a Map<String, Value>) -> Result<&'a Value, String> {
    let Some(name) = name.as_str() else { return Err("has a $ref that is no name".into()) };
    evaluators
        .get(name)
        .ok_or_else(|| format!("names the evaluator {name:?}, which $evaluators does not hold"))
}

struct Compiler<'a> {
    evaluators: &'a Map<String, Value>,
    nodes: usize,
    uses_clock: bool,
}

impl Compiler<'_> {
    fn rule(&mut self, rule: &Value, depth: usize) -> Result<Rule, String> {
        self.nodes += 1;
        if depth > DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST} levels"));
        }
        if self.nodes > LARGEST {
            return Err(format!("has more than {LARGEST} parts"));
        }
        match rule {
            Value::Array(items) => Ok(Rule::List(self.rules(items, depth)?)),
            Value::Object(map) if map.len() == 1 => {
                let Some((name, argument)) = map.iter().next() else {
                    return Ok(Rule::Literal(rule.clone()));
                };
                if name == "$ref" {
                    return self.rule(referenced(argument, self.evaluators)?, depth + 1);
                }
                let one = std::slice::from_ref(argument);
                self.call(name, argument.as_array().map_or(one, Vec::as_slice), depth + 1)
            }
            literal => Ok(Rule::Literal(literal.clone())),
        }
    }

    fn rules(&mut self, rules: &[Value], depth: usize) -> Result<Vec<Rule>, String> {
        rules.iter().map(|rule| self.rule(rule, depth + 1)).collect()
    }

    fn boxed(&mut self, rule: Option<&Value>, depth: usize) -> Result<Box<Rule>, String> {
        self.rule(rule.unwrap_or(&Value::Null), depth).map(Box::new)
    }

    fn call(&mut self, name: &str, arguments: &[Value], depth: usize) -> Result<Rule, String> {
        use Call as C;
        let call = match name {
            "var" => return self.var(arguments, depth),
            "if" | "?:" => return Ok(Rule::If(self.rules(arguments, depth)?)),
            "and" => return Ok(Rule::And(self.rules(arguments, depth)?)),
            "or" => return Ok(Rule::Or(self.rules(arguments, depth)?)),
            "map" => return self.each(Each::Map, arguments, depth),
            "filter" => return self.each(Each::Filter, arguments, depth),
            "all" => return self.each(Each::All, arguments, depth),
            "none" => return self.each(Each::None, arguments, depth),
            "some" => return self.each(Each::Some, arguments, depth),
            "reduce" => {
                let mut part = |n| self.boxed(arguments.get(n), depth);
                return Ok(Rule::Reduce(part(0)?, part(1)?, part(2)?));
            }
            "fractional" => return self.fractional(arguments, depth),
            "==" => C::Equal,
            "===" => C::Same,
            "!=" => C::NotEqual,
            "!==" => C::NotSame,
            "<" => C::Less,
            "<=" => C::LessOrEqual,
            ">" => C::Greater,
            ">=" => C::GreaterOrEqual,
            "!" => C::Not,
            "!!" => C::Truthy,
            "in" => C::In,
            "+" => C::Add,
            "-" => C::Subtract,
            "*" => C::Multiply,
            "/" => C::Divide,
            "%" => C::Remainder,
            "min" => C::Min,
            "max" => C::Max,
            "cat" => C::Cat,
            "substr" => C::Substr,
            "merge" => C::Merge,
            "missing" => C::Missing,
            "missing_some" => C::MissingSome,
            "starts_with" => C::StartsWith,
            "ends_with" => C::EndsWith,
            "sem_ver" => C::SemVer,
            unknown => return Err(format!("uses the operator {unknown:?}, which is not known")),
        };
        Ok(Rule::Call(call, self.rules(arguments, depth)?))
    }

    fn var(&mut self, arguments: &[Value], depth: usize) -> Result<Rule, String> {
        let default = match arguments.get(1) {
            Some(default) => Some(self.boxed(Some(default), depth)?),
            None => None,
        };
        let path = match arguments.first() {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(path)) if path.is_empty() => Vec::new(),
            Some(Value::String(path)) => path.split('.').map(str::to_owned).collect(),
            Some(Value::Number(index)) => vec![index.to_string()],
            Some(computed) => {
                self.uses_clock = true;
                return Ok(Rule::VarBy(self.boxed(Some(computed), depth)?, default));
            }
        };
        self.uses_clock |= path.first().is_some_and(|first| first == "$flagd")
            && path.get(1).is_none_or(|name| name == "timestamp");
        Ok(Rule::Var(path, default))
    }

    fn each(&mut self, each: Each, arguments: &[Value], depth: usize) -> Result<Rule, String> {
        Ok(Rule::Each(each, self.boxed(arguments.first(), depth)?, self.boxed(arguments.get(1), depth)?))
    }

    fn fractional(&mut self, arguments: &[Value], depth: usize) -> Result<Rule, String> {
        let (key, shares) = match arguments {
            [key, shares @ ..] if !key.is_array() => (Some(self.boxed(Some(key), depth)?), shares),
            shares => (None, shares),
        };
        if shares.is_empty() {
            return Err("has a fractional without any [variant, weight]".into());
        }
        let mut compiled = Vec::with_capacity(shares.len());
        for share in shares {
            let Some([variant, rest @ ..]) = share.as_array().map(Vec::as_slice) else {
                return Err("has a fractional part that is not [variant, weight]".into());
            };
            if let Some(weight) = rest.first().filter(|weight| !whole(weight)) {
                return Err(format!(
                    "has the fractional weight {weight}: weights are whole numbers up to 2147483647"
                ));
            }
            let weight = match rest.first() {
                Some(weight) => Some(self.rule(weight, depth + 1)?),
                None => None,
            };
            compiled.push(Share { variant: self.rule(variant, depth + 1)?, weight });
        }
        let sum: f64 = compiled
            .iter()
            .map(|share| match &share.weight {
                Some(Rule::Literal(weight)) => weight.as_f64().unwrap_or(0.0).max(0.0),
                _ => 0.0,
            })
            .sum();
        if sum > f64::from(i32::MAX) {
            return Err("has fractional weights whose sum is above 2147483647".into());
        }
        Ok(Rule::Fractional(key, compiled))
    }
}

/// A weight that can be told to be wrong before it is used; computed ones are looked at then.
fn whole(weight: &Value) -> bool {
    match weight {
        Value::Number(number) => {
            number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() <= f64::from(i32::MAX))
        }
        Value::Object(_) | Value::Null => true,
        _ => false,
    }
}
