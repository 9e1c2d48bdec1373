//! The text form: printer and parser. The crate's documentation has an example.

use std::fmt;
use std::str::FromStr;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::attr::{Attr, AttrMap, F32, is_word};
use crate::graph::{Graph, NewNode, NodeId, ValueRef};
use crate::{Builder, DType, Dim, Dims, Op, Origin, Shape, Tensor, ValueInfo};

/// Elements of a constant that are printed in full.
const FULL_TENSOR: usize = 16;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graph {}(", quoted(self.name()))?;
        for (at, id) in self.inputs().iter().enumerate() {
            let info = self.info((*id).into());
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{}", self.shown((*id).into()))?;
            if let Some(info) = info {
                write!(f, ": {info}")?;
            }
        }
        f.write_str(") -> (")?;
        for (at, output) in self.outputs().iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{}", self.shown(output.value))?;
            if self.value(output.value).is_none_or(|value| value.name != output.name) {
                write!(f, " as {:?}", output.name)?;
            }
        }
        f.write_str(") {\n")?;
        for id in self.topo() {
            self.write_node(f, id)?;
        }
        f.write_str("}\n")
    }
}

fn quoted(name: &str) -> String {
    if is_word(name) { name.to_string() } else { format!("{name:?}") }
}

/// One node in text form.
struct Line<'g>(&'g Graph, NodeId);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_node(f, self.1)
    }
}

impl Graph {
    /// A node's line of the text form; empty for an input, which has none.
    pub fn line(&self, id: NodeId) -> String {
        Line(self, id).to_string().trim().to_string()
    }

    fn shown(&self, value: ValueRef) -> String {
        let name = self.value(value).map_or("?", |value| &value.name);
        // Two slashes would read as a comment.
        let bare = !name.is_empty()
            && !name.contains("//")
            && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'));
        if bare { format!("%{name}") } else { format!("%{name:?}") }
    }

    fn write_node(&self, f: &mut fmt::Formatter<'_>, id: NodeId) -> fmt::Result {
        let Some(node) = self.node(id) else { return Ok(()) };
        if matches!(node.op, Op::Input) {
            return Ok(());
        }
        f.write_str("  ")?;
        for slot in 0..node.outputs.len() {
            let comma = if slot > 0 { ", " } else { "" };
            write!(f, "{comma}{}", self.shown(ValueRef { node: id, slot: slot as u32 }))?;
        }
        write!(f, " = {}(", node.op.name())?;
        for (slot, input) in self.node_inputs(id).into_iter().enumerate() {
            let comma = if slot > 0 { ", " } else { "" };
            write!(f, "{comma}{}", input.map_or("_".to_string(), |input| self.shown(input)))?;
        }
        f.write_str(")")?;
        for (key, attr) in node.op.attrs() {
            write!(f, " {key}={attr}")?;
        }
        // A constant's type is its data's.
        if node.op.as_constant().is_none() {
            for (slot, value) in node.outputs.iter().enumerate() {
                write!(f, "{} {}", if slot == 0 { " :" } else { "," }, value.info)?;
            }
        }
        f.write_str("\n")
    }
}

/// `f32[2] {1, 2}`, `f32[64] splat 0`, or `f32[64] #hash` for data too long to print.
pub(crate) fn write_tensor(f: &mut fmt::Formatter<'_>, tensor: &Tensor) -> fmt::Result {
    write!(f, "{}{:?}", tensor.dtype(), tensor.dims())?;
    let one = tensor.splat_element().map(bytes::Bytes::copy_from_slice);
    let splat = one.and_then(|element| Tensor::new(tensor.dtype(), [], element).ok());
    let printed = match &splat {
        Some(element) => elements(element),
        None if tensor.numel() <= FULL_TENSOR => elements(tensor),
        None => None,
    };
    match (printed, splat) {
        (Some(items), Some(_)) => write!(f, " splat {}", items.concat()),
        (Some(items), None) => write!(f, " {{{}}}", items.join(", ")),
        (None, _) => write!(f, " #{:016x}", tensor.content_hash()),
    }
}

/// Elements as text that reads back to the same bits.
fn elements(tensor: &Tensor) -> Option<Vec<String>> {
    if tensor.dtype().is_float() {
        let exact = |value: f64| {
            if tensor.dtype() == DType::F64 { format!("{value:?}") } else { format!("{:?}", value as f32) }
        };
        return Some(tensor.to_f64s()?.into_iter().map(exact).collect());
    }
    if tensor.dtype() == DType::U64 {
        return Some(tensor.view::<u64>().ok()?.iter().map(u64::to_string).collect());
    }
    Some(tensor.to_i64s()?.iter().map(i64::to_string).collect())
}

/// Text that is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What was expected or does not fit.
    pub reason: String,
}

impl FromStr for Graph {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { text, at: 0 };
        parser.graph().map_err(|reason| {
            let line = text.as_bytes().iter().take(parser.at).filter(|byte| **byte == b'\n').count() + 1;
            ParseError { line, reason }
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

type Values = FxHashMap<String, ValueRef>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn skip_blanks(&mut self) {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Moves on past a token and the blanks before it; stays if it does not come next.
    fn eat(&mut self, token: &str) -> bool {
        let start = self.at;
        self.skip_blanks();
        let found = self.rest().starts_with(token);
        self.at = if found { self.at + token.len() } else { start };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) {
            return Ok(());
        }
        self.skip_blanks();
        let found: String = self.rest().chars().take(20).collect();
        Err(format!("`{token}` expected, found `{found}`"))
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or("")
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, '0')) => text.push('\0'),
                    Some((_, 'u')) => text.push(escaped(&mut chars)?),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err("a string without an end".to_string())
    }

    fn word(&mut self) -> Result<String, String> {
        self.skip_blanks();
        if self.rest().starts_with('"') {
            return self.string();
        }
        let word = self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'));
        if word.is_empty() { Err("a word expected".to_string()) } else { Ok(word.to_string()) }
    }

    fn value_name(&mut self) -> Result<String, String> {
        self.expect("%")?;
        self.word()
    }

    fn graph(&mut self) -> Result<Graph, String> {
        self.expect("graph")?;
        let mut builder = Builder::new(self.word()?);
        let mut values = Values::default();
        self.expect("(")?;
        while !self.eat(")") {
            let name = self.value_name()?;
            self.expect(":")?;
            let info = self.value_info()?;
            values.insert(name.clone(), builder.input(name, info));
            self.eat(",");
        }
        self.expect("->")?;
        self.expect("(")?;
        let mut outputs = Vec::new();
        while !self.eat(")") {
            let name = self.value_name()?;
            let public = if self.eat("as ") { self.string()? } else { name.clone() };
            outputs.push((public, name));
            self.eat(",");
        }
        self.expect("{")?;
        while !self.eat("}") {
            self.node(&mut builder, &mut values)?;
        }
        for (public, name) in outputs {
            let value = values.get(&name).ok_or_else(|| format!("output `%{name}` is not defined"))?;
            builder.output(public, *value);
        }
        Ok(builder.finish())
    }

    fn node(&mut self, builder: &mut Builder, values: &mut Values) -> Result<(), String> {
        let mut names = vec![self.value_name()?];
        while self.eat(",") {
            names.push(self.value_name()?);
        }
        self.expect("=")?;
        let op_name = self.word()?;
        self.expect("(")?;
        let mut inputs = Vec::new();
        while !self.eat(")") {
            if self.eat("_") {
                inputs.push(None);
            } else {
                let name = self.value_name()?;
                inputs.push(Some(*values.get(&name).ok_or_else(|| format!("`%{name}` is not defined"))?));
            }
            self.eat(",");
        }
        let mut attrs = AttrMap::new();
        while let Some(key) = self.attr_key() {
            attrs.insert(key, self.attr()?);
        }
        let op = Op::parse(&op_name, &mut attrs).map_err(|error| error.to_string())?;
        if let Some(key) = attrs.keys().next() {
            return Err(format!("`{op_name}` has no attribute `{key}`"));
        }
        let origin = match &op {
            Op::Constant(_) => Origin::default(),
            op => builder.source(names.first().cloned().unwrap_or_default(), op.to_string()),
        };
        let new = NewNode {
            op: with_default_padding(op, &inputs, builder.graph()),
            inputs,
            name: names.first().cloned().unwrap_or_default().into(),
            outputs: names.iter().map(|name| name.as_str().into()).collect(),
            origin,
        };
        let id = builder.node(new).map_err(|error| error.to_string())?;
        for (slot, name) in names.into_iter().enumerate() {
            let value = ValueRef { node: id, slot: slot as u32 };
            if values.insert(name.clone(), value).is_some() {
                return Err(format!("`%{name}` is defined twice"));
            }
        }
        if self.eat(":") {
            for slot in 0.. {
                let stated = self.value_info()?;
                builder.hint(ValueRef { node: id, slot }, &stated).map_err(|error| error.to_string())?;
                if !self.eat(",") {
                    break;
                }
            }
        }
        Ok(())
    }

    /// `key=`, if that is what follows.
    fn attr_key(&mut self) -> Option<String> {
        let start = self.at;
        self.skip_blanks();
        let key = self.take_while(|c| c.is_alphanumeric() || c == '_').to_string();
        if !key.is_empty() && self.rest().starts_with('=') {
            self.at += 1;
            return Some(key);
        }
        self.at = start;
        None
    }

    fn attr(&mut self) -> Result<Attr, String> {
        self.skip_blanks();
        if self.eat("[") {
            return self.attrs_until("]").map(Attr::List);
        }
        if self.rest().starts_with('(') {
            return self.dim_text().map(Attr::Dim);
        }
        if self.rest().starts_with('"') {
            return self.string().map(|text| Attr::Word(text.into()));
        }
        let mut ahead = self.rest().chars();
        let first = ahead.next().unwrap_or(' ');
        if first.is_ascii_digit() || (first == '-' && ahead.next().is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        let word = self.word()?;
        if self.rest().starts_with('[')
            && let Ok(dtype) = word.parse()
        {
            return self.tensor(dtype).map(Attr::Tensor);
        }
        if self.rest().starts_with('(') {
            self.expect("(")?;
            return self.attrs_until(")").map(|items| Attr::Call(word.into(), items));
        }
        Ok(Attr::Word(word.into()))
    }

    fn attrs_until(&mut self, end: &str) -> Result<Vec<Attr>, String> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(self.attr()?);
            self.eat(",");
        }
        Ok(items)
    }

    fn number(&mut self) -> Result<Attr, String> {
        let text = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
        if let Ok(value) = text.parse() {
            return Ok(Attr::Int(value));
        }
        text.parse().map(|value| Attr::Float(F32(value))).map_err(|_| format!("`{text}` is no number"))
    }

    /// A parenthesised expression.
    fn dim_text(&mut self) -> Result<Dim, String> {
        let mut depth = 0_usize;
        let end = self.rest().char_indices().find_map(|(at, c)| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0).then_some(at + 1)
        });
        let text = end.and_then(|end| self.rest().get(..end)).ok_or("`)` expected")?;
        self.at += text.len();
        text.parse().map_err(|error| format!("{error}"))
    }

    fn value_info(&mut self) -> Result<ValueInfo, String> {
        self.skip_blanks();
        let name = self.take_while(|c| c.is_alphanumeric());
        let dtype: DType = name.parse().map_err(|()| format!("no type is called `{name}`"))?;
        self.expect("[")?;
        if self.eat("..]") {
            return Ok(ValueInfo::unshaped(dtype));
        }
        let mut shape = Shape::new();
        while !self.eat("]") {
            // min(a, b) has a comma of its own.
            let mut depth = 0_usize;
            let text = self.rest();
            let end = text.char_indices().find_map(|(at, c)| match c {
                '(' => {
                    depth += 1;
                    None
                }
                ')' => {
                    depth = depth.saturating_sub(1);
                    None
                }
                ',' | ']' if depth == 0 => Some(at),
                _ => None,
            });
            let text = end.and_then(|end| text.get(..end)).ok_or("`]` expected")?;
            self.at += text.len();
            shape.push(text.parse().map_err(|error| format!("{error}"))?);
            self.eat(",");
        }
        Ok(ValueInfo::new(dtype, shape))
    }

    fn tensor(&mut self, dtype: DType) -> Result<Tensor, String> {
        self.expect("[")?;
        let mut dims = Dims::new();
        while !self.eat("]") {
            self.skip_blanks();
            let text = self.take_while(|c| c.is_ascii_digit());
            dims.push(text.parse().map_err(|_| "a size expected".to_string())?);
            self.eat(",");
        }
        if self.eat("splat") {
            let element = self.scalar()?;
            let element = encode(dtype, &[element])?;
            return Tensor::splat(dtype, dims, element).map_err(|error| error.to_string());
        }
        if self.eat("#") {
            return Err("the data of this constant was left out when it was printed".to_string());
        }
        self.expect("{")?;
        let mut items = Vec::new();
        while !self.eat("}") {
            items.push(self.scalar()?);
            self.eat(",");
        }
        Tensor::new(dtype, dims, encode(dtype, &items)?).map_err(|error| error.to_string())
    }

    fn scalar(&mut self) -> Result<&'a str, String> {
        self.skip_blanks();
        let text = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
        if text.is_empty() { Err("a number expected".to_string()) } else { Ok(text) }
    }
}

/// `{e9}`, what follows `\u` in a string.
fn escaped(chars: &mut std::str::CharIndices<'_>) -> Result<char, String> {
    let digits: String = chars.map(|(_, c)| c).skip_while(|c| *c == '{').take_while(|c| *c != '}').collect();
    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
    code.ok_or_else(|| format!("`{digits}` is no character"))
}

fn encode(dtype: DType, items: &[&str]) -> Result<bytes::Bytes, String> {
    macro_rules! encode {
        ($($dtype:ident: $rust:ty),*) => {
            match dtype {
                $(DType::$dtype => {
                    let items: Result<Vec<$rust>, _> = items.iter().map(|item| item.parse::<$rust>()).collect();
                    items.map(<$rust as crate::Element>::into_bytes).map_err(|error| error.to_string())
                })*
                DType::Bool => Ok(items.iter().map(|item| u8::from(!matches!(*item, "0" | "false"))).collect()),
                DType::F16 | DType::BF16 => {
                    let items: Result<Vec<f32>, _> = items.iter().map(|item| item.parse::<f32>()).collect();
                    let items = items.map_err(|error| error.to_string())?;
                    Ok(if dtype == DType::F16 {
                        crate::Element::into_bytes(items.into_iter().map(half::f16::from_f32).collect())
                    } else {
                        crate::Element::into_bytes(items.into_iter().map(half::bf16::from_f32).collect())
                    })
                }
                other => Err(format!("constants of {other} are not parsed")),
            }
        };
    }
    encode!(F32: f32, F64: f64, I8: i8, U8: u8, I16: i16, U16: u16, I32: i32, U32: u32, I64: i64, U64: u64)
}

/// Padding that was left out is none on each spatial axis of the data.
fn with_default_padding(op: Op, inputs: &[Option<ValueRef>], graph: &Graph) -> Op {
    let rank = inputs.first().copied().flatten().and_then(|input| graph.info(input)?.rank());
    let Some(axes) = rank.map(|rank| rank.saturating_sub(2)) else { return op };
    let widen = |padding: &mut crate::Padding| {
        if matches!(padding, crate::Padding::Explicit(pads) if pads.is_empty()) {
            *padding = crate::Padding::Explicit(SmallVec::from_elem(0, 2 * axes));
        }
    };
    let mut op = op;
    match &mut op {
        Op::Conv(op) => widen(&mut op.padding),
        Op::ConvTranspose(op) => widen(&mut op.padding),
        Op::Pool(op) => widen(&mut op.padding),
        _ => {}
    }
    op
}

#[cfg(test)]
mod tests;
