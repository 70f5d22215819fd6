// SPDX-License-Identifier: Apache-2.0
//! Common Expression Language expressions over `_flow`: fields by their protocol names, with defaults where unset, and
//! enumerations as `Verdict.DROPPED`.
//!
//! The library's values do not record whether a field is set, so `has()` is rejected; an absent message has default
//! fields.

mod shape;

use super::FilterError;
use crate::proto;
use crate::proto::flow::Flow;
use cel::common::traits::Indexer;
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelNull, CelString, CelUInt, Kind, Type,
};
use cel::common::value::{CowVal, Val};
use cel::extractors::This;
use cel::{Context, Env, ExecutionError, Program, Value};
use prost::{Message as _, Name};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as FieldKind, MessageDescriptor, ReflectMessage, Value as Field,
};
use shape::{Patterns, Shape};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

const FIELD: &str = "experimental.cel_expression";
const FLOW: &str = "_flow";
/// Parser and interpreter recurse once per nesting level of an expression. An expression has no more levels than
/// tokens; operators use more stack than other tokens, and brackets most. String literals are not recognised: parsing
/// them differently from the library could hide levels.
const LONGEST: usize = 128;
const MOST_OPERATORS: usize = 32;
const DEEPEST: usize = 16;
/// Stack for the parser: some 150 KiB per bracket in an unoptimised build.
const STACK: usize = 16 << 20;

static TYPE: Type = Type::simple_type(Kind::Struct, "flow.Flow");
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// An expression that is true for the wanted flows.
pub(super) struct Expression {
    program: Program,
    /// The regular expressions of `matches()`.
    patterns: Arc<Patterns>,
    /// The enumerations that it names, by name.
    enums: Vec<(String, Value)>,
}

impl Expression {
    pub(super) fn compile(text: &str) -> Result<Self, FilterError> {
        let error = |want: &'static str| FilterError { field: FIELD, value: text.to_owned(), want };
        if length(text) > LONGEST {
            return Err(error("128 words and signs long at most"));
        }
        if operators(text) > MOST_OPERATORS {
            return Err(error("made of 32 operators at most"));
        }
        if depth(text) > DEEPEST {
            return Err(error("nested 16 levels deep at most"));
        }
        std::thread::scope(|scope| {
            let parser = std::thread::Builder::new().name("cel".to_owned()).stack_size(STACK);
            let parsed = parser.spawn_scoped(scope, || Self::parse(text)).ok().and_then(|thread| thread.join().ok());
            parsed.unwrap_or(Err("possible: it could not be parsed")).map_err(error)
        })
    }

    /// A text within the limits, or what is expected.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let parse = |env: &Env| env.compile(text).map_err(|_| "an expression");
        // Without macros, these are calls like any others.
        let patterns = Arc::new(Shape::check(&parse(&Env::default().with_stdlib())?.expression().expr)?);
        let program = parse(&ENV)?;
        let enums = proto::pool().all_enums().filter(|e| program.references().has_variable(e.name()));
        let enums = enums.map(|e| {
            let values: HashMap<String, i64> = e.values().map(|v| (v.name().to_owned(), v.number().into())).collect();
            (e.name().to_owned(), values.into())
        });
        let expression = Self { enums: enums.collect(), program, patterns };
        match expression.value(&Flow::default()) {
            Ok(Value::Bool(_)) => Ok(expression),
            _ => Err("true or false of a flow with the fields of the protocol"),
        }
    }

    /// Whether it is true; an error, such as an index out of range, counts as false.
    pub(super) fn fits(&self, flow: &Flow) -> bool {
        matches!(self.value(flow), Ok(Value::Bool(true)))
    }

    fn value(&self, flow: &Flow) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        for (name, values) in &self.enums {
            context.add_variable_from_value(name.clone(), values.clone());
        }
        let patterns = Arc::clone(&self.patterns);
        let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| {
            patterns.get(&*pattern).is_some_and(|pattern| pattern.is_match(&text))
        };
        context.add_function("matches", matches).map_err(|e| ExecutionError::function_error("matches", e))?;
        let unknown = || ExecutionError::undeclared_reference(FLOW);
        let descriptor = proto::pool().get_message_by_name(&Flow::full_name()).ok_or_else(unknown)?;
        let mut message = DynamicMessage::new(descriptor);
        message.merge(flow.encode_to_vec().as_slice()).map_err(|_| unknown())?;
        context.add_variable_as_val(FLOW, Box::new(Message(message)));
        self.program.execute(&context)
    }
}

/// Number of tokens.
fn length(text: &str) -> usize {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count();
    words + text.chars().filter(|c| !c.is_alphanumeric() && *c != '_' && !c.is_whitespace()).count()
}

/// Number of operators.
fn operators(text: &str) -> usize {
    let signs = text.split(|c: char| !"+-*/%<>=!&|?:".contains(c)).filter(|run| !run.is_empty()).count();
    signs + text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| *word == "in").count()
}

/// Maximum nesting of brackets and prefixes.
fn depth(text: &str) -> usize {
    let (mut open, mut prefixes, mut deepest) = (0_usize, 0_usize, 0);
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '!' | '-' | '?' => prefixes += 1,
            _ => {}
        }
        deepest = deepest.max(open + prefixes);
    }
    deepest
}

/// A message whose fields are converted on demand.
#[derive(Clone, Debug)]
struct Message(DynamicMessage);

impl Val for Message {
    fn get_type(&self) -> &Type {
        &TYPE
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }
}

impl Indexer for Message {
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = name.downcast_ref::<CelString<'_>>().map(|name| name.inner()).unwrap_or_default();
        let field = self.0.descriptor().get_field_by_name(name).ok_or_else(|| ExecutionError::no_such_key(name))?;
        Ok(CowVal::Owned(value_of(&self.0, &field)))
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(name).map(CowVal::into_owned)
    }
}

fn value_of(message: &DynamicMessage, field: &FieldDescriptor) -> Box<dyn Val> {
    // A wrapped scalar that is not set is null, not its default.
    if let FieldKind::Message(inner) = field.kind()
        && is_wrapper(&inner)
        && !message.has_field(field)
    {
        return Box::new(CelNull);
    }
    value(&message.get_field(field))
}

fn value(field: &Field) -> Box<dyn Val> {
    match field {
        Field::Bool(v) => Box::new(CelBool::from(*v)),
        Field::I32(v) | Field::EnumNumber(v) => Box::new(CelInt::from(i64::from(*v))),
        Field::I64(v) => Box::new(CelInt::from(*v)),
        Field::U32(v) => Box::new(CelUInt::from(u64::from(*v))),
        Field::U64(v) => Box::new(CelUInt::from(*v)),
        Field::F32(v) => Box::new(CelDouble::from(f64::from(*v))),
        Field::F64(v) => Box::new(CelDouble::from(*v)),
        Field::String(v) => Box::new(CelString::from(v.clone())),
        Field::Bytes(v) => Box::new(CelBytes::from(v.to_vec())),
        Field::Message(inner) if is_wrapper(&inner.descriptor()) => inner
            .descriptor()
            .get_field_by_name("value")
            .map_or_else(|| Box::new(CelNull) as _, |v| value(&inner.get_field(&v))),
        Field::Message(inner) => Box::new(Message(inner.clone())),
        Field::List(items) => Box::new(CelList::from(items.iter().map(value).collect::<Vec<_>>())),
        // The protocol has none.
        Field::Map(_) => Box::new(CelMap::default()),
    }
}

/// Whether the message is a wrapper that only distinguishes a default from unset.
fn is_wrapper(message: &MessageDescriptor) -> bool {
    message.parent_file().name() == "google/protobuf/wrappers.proto"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::proto::flow::layer4::Protocol;
    use crate::proto::flow::{Endpoint, Layer4, Tcp, TcpFlags, Verdict};

    fn flow() -> Flow {
        let flags = Some(TcpFlags { syn: true, ..TcpFlags::default() });
        let tcp = Tcp { source_port: 41000, destination_port: 443, flags };
        Flow {
            verdict: Verdict::Dropped.into(),
            is_reply: Some(false),
            l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
            source: Some(Endpoint {
                identity: 300,
                namespace: "shop".to_owned(),
                labels: vec!["k8s:app=web".to_owned()],
                ..Endpoint::default()
            }),
            ..Flow::default()
        }
    }

    fn fits(text: &str, flow: &Flow) -> bool {
        Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {error}")).fits(flow)
    }

    #[test]
    fn fields_are_found_by_the_names_of_the_protocol() {
        for text in [
            "_flow.verdict == Verdict.DROPPED",
            "_flow.source.namespace == 'shop' && _flow.source.identity > 256u",
            "_flow.l4.TCP.destination_port in [80u, 443u] && _flow.l4.TCP.flags.SYN",
            "_flow.source.labels.exists(label, label.startsWith('k8s:app='))",
            "_flow.source.namespace.matches('^sh[aeiou]p$')",
            "_flow.is_reply == false",
        ] {
            assert!(fits(text, &flow()), "{text}");
            assert!(!fits(&format!("!({text})"), &flow()), "not {text}");
        }
    }

    #[test]
    fn what_is_not_set_has_its_default_and_a_wrapped_value_is_null() {
        let nothing = Flow::default();
        assert!(fits("_flow.l4.TCP.destination_port == 0u && _flow.source.namespace == ''", &nothing));
        assert!(fits("!(_flow.l4.UDP.destination_port == 53u)", &flow()));
        assert!(fits("_flow.is_reply == null", &nothing) && !fits("_flow.is_reply == null", &flow()));
    }

    #[test]
    fn what_is_no_condition_on_a_flow_is_refused() {
        let deep = format!("{}true{}", "(".repeat(2000), ")".repeat(2000));
        let long = format!("_flow.source.namespace == '{}'", "x ".repeat(LONGEST));
        let bad = ["", "_flow.", "_flow.colour == 1", "1 + 1", "flow.verdict == 1", "has(_flow.l4)", &deep, &long];
        for text in bad {
            let error = Expression::compile(text).map(drop).unwrap_err().to_string();
            assert!(error.contains("experimental.cel_expression"), "{text}: {error}");
        }
    }

    #[test]
    fn an_expression_costs_no_more_than_a_few_looks_at_each_label() {
        let labels = "_flow.source.labels";
        let nested = format!("{labels}.all(a, {labels}.exists(b, a == b))");
        let grown = "['a'].map(x, x + x).map(x, x + x) == []".to_owned();
        let dear = r"_flow.source.namespace.matches('\\w{20}')".to_owned();
        let computed = "_flow.source.namespace.matches('(' + _flow.source.pod_name + ')')".to_owned();
        let wrong = "matches(_flow.source.namespace, '(')".to_owned();
        for (text, want) in [
            (nested, "without a loop within a loop"),
            (grown, "supported without map()"),
            (dear, "with regular expressions in quotes"),
            (computed, "with regular expressions in quotes"),
            (wrong, "with regular expressions in quotes"),
        ] {
            let error = Expression::compile(&text).map(drop).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        let chained = format!("{labels}.filter(a, a.startsWith('k8s:')).exists(a, matches(a, 'web$'))");
        assert!(fits(&chained, &flow()));
    }

    #[test]
    fn no_expression_is_too_much_for_the_stack() {
        // As many levels as are let in, and far more.
        let repeated = |times| move |head: &str, part: &str, tail: &str| format!("{head}{}{tail}", part.repeat(times));
        for repeated in [15, 40, 60, 1000].map(repeated) {
            for text in [
                repeated("", "(", "true"),
                repeated("", "[", "1"),
                repeated("", "{1:", "1"),
                repeated("", "!", "true"),
                repeated("1 == ", "-", "1"),
                repeated("", "true?", "true"),
                repeated("", "true ? true : ", "true"),
                repeated("_flow", ".source", " == 1"),
                repeated("1", "+1", " == 1"),
                repeated("true", "&&true", ""),
                repeated("", "f(", "1"),
                repeated("_flow.source.labels", ".map(x,x)", " == []"),
                repeated("_flow.source.labels", ".filter(x,true)", " == []"),
                repeated("1", " in 1", ""),
                repeated("_flow", "[1]", ""),
            ] {
                // Refused or not, it is told.
                let _ = Expression::compile(&text).map(|expression| expression.fits(&flow()));
            }
        }
    }

    #[test]
    fn what_cannot_be_told_of_a_flow_is_not_true_of_it() {
        let text = "_flow.verdict == Verdict.VERDICT_UNKNOWN || _flow.source.labels[3] == 'k8s:app=web'";
        assert!(!fits(text, &flow()));
    }

    #[test]
    fn length_operators_and_depth_are_counted_so_that_none_can_hide() {
        for (text, counted) in [
            ("", (0, 0, 0)),
            ("true", (1, 0, 0)),
            ("a_b == 1", (4, 1, 0)),
            ("_flow.source.labels[3]", (8, 0, 1)),
            ("a  in [1, 22]", (7, 1, 1)),
            ("inner.in_x", (3, 0, 0)),
            ("a && !b", (5, 2, 1)),
            ("((a))", (5, 0, 2)),
            ("(a)+(b)", (7, 1, 1)),
            ("{1:[2]}", (7, 1, 2)),
            ("-(-1)", (5, 2, 3)),
            (")))((", (5, 0, 2)),
            ("a?b:c?d:e", (9, 4, 2)),
            ("x<=1||y>=2", (10, 3, 0)),
        ] {
            assert_eq!((length(text), operators(text), depth(text)), counted, "{text}");
        }
    }

    #[test]
    fn an_expression_may_be_as_large_as_the_limits_say() {
        let refusal = |text: &str| Expression::compile(text).map(drop).unwrap_err().to_string();
        let or = |times| format!("true{}", "||true".repeat(times));
        assert!(Expression::compile(&or(MOST_OPERATORS)).is_ok());
        assert!(refusal(&or(MOST_OPERATORS + 1)).contains("made of 32 operators at most"));
        let brackets = |times| format!("{}true{}", "(".repeat(times), ")".repeat(times));
        assert!(Expression::compile(&brackets(DEEPEST)).is_ok());
        for more in [1, 2] {
            assert!(refusal(&brackets(DEEPEST + more)).contains("nested 16 levels deep at most"));
        }
        // Sixty elements with their commas, and eight signs and words around them.
        let list = |times: usize| format!("1 in [{}1,1]", "1,".repeat(times));
        assert_eq!(length(&list(60)), LONGEST - 1);
        assert!(Expression::compile(&list(60)).is_ok());
        let longest = format!("!({})", list(59));
        assert_eq!(length(&longest), LONGEST);
        assert!(Expression::compile(&longest).is_ok());
        assert!(refusal(&format!("!{longest}")).contains("128 words and signs long at most"));
    }

    #[test]
    fn a_loop_within_a_loop_is_found_wherever_it_is() {
        let labels = "_flow.source.labels";
        let inner = format!("{labels}.exists(b, b == a)");
        for outer in
            [format!("[{inner}]"), format!("{{1: {inner}}}"), format!("{{{inner}: 1}}"), format!("({inner} ? 1 : 2)")]
        {
            let text = format!("{labels}.all(a, {outer} == {outer})");
            let error = Expression::compile(&text).map(drop).unwrap_err().to_string();
            assert!(error.contains("without a loop within a loop"), "{text}: {error}");
        }
    }
}
