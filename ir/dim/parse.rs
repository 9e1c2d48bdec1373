//! Text to dimensions.

use std::str::FromStr;
use std::sync::Arc;

use super::Dim;
use super::text::is_identifier;

/// Text that is no dimension.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no dimension: {reason} at byte {at}")]
pub struct ParseDimError {
    text: String,
    reason: &'static str,
    at: usize,
}

/// Nesting that the parser takes.
const MAX_DEPTH: usize = 64;

impl FromStr for Dim {
    type Err = ParseDimError;

    fn from_str(text: &str) -> Result<Self, ParseDimError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let dim = parser.sum()?;
        parser.skip_blanks();
        if parser.at == text.len() { Ok(dim) } else { Err(parser.error("text left over")) }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, reason: &'static str) -> ParseDimError {
        ParseDimError { text: self.text.to_string(), reason, at: self.at }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: char) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len_utf8();
        }
        found
    }

    fn sum(&mut self) -> Result<Dim, ParseDimError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("too deep"));
        }
        let negative = self.eat('-');
        let first = self.product()?;
        let mut total = if negative { -&first } else { first };
        loop {
            if self.eat('+') {
                total = total + self.product()?;
            } else if self.eat('-') {
                total = total - self.product()?;
            } else {
                self.depth -= 1;
                return Ok(total);
            }
        }
    }

    fn product(&mut self) -> Result<Dim, ParseDimError> {
        let mut total = self.primary()?;
        loop {
            if self.eat('*') {
                total = total * self.primary()?;
            } else if self.eat('/') {
                let divisor = self.primary()?;
                total = total.floor_div(&divisor).ok_or_else(|| self.error("division by 0"))?;
            } else if self.eat('%') {
                let divisor = self.primary()?;
                total = total.modulo(&divisor).ok_or_else(|| self.error("division by 0"))?;
            } else {
                return Ok(total);
            }
        }
    }

    fn primary(&mut self) -> Result<Dim, ParseDimError> {
        if self.eat('(') {
            let inner = self.sum()?;
            return if self.eat(')') { Ok(inner) } else { Err(self.error("`)` expected")) };
        }
        if self.eat('`') {
            let end = self.rest().find('`').ok_or_else(|| self.error("`` ` `` expected"))?;
            let name = Arc::<str>::from(&self.rest()[..end]);
            self.at += end + 1;
            return Ok(Dim::symbol(name));
        }
        self.skip_blanks();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        let word = rest[..end].to_string();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let value = word.parse().map_err(|_| self.error("number out of range"))?;
            self.at += end;
            return Ok(Dim::fixed(value));
        }
        if !is_identifier(&word) && word != "min" && word != "max" {
            return Err(self.error("number or symbol expected"));
        }
        self.at += end;
        if (word == "min" || word == "max") && self.eat('(') {
            let a = self.sum()?;
            if !self.eat(',') {
                return Err(self.error("`,` expected"));
            }
            let b = self.sum()?;
            if !self.eat(')') {
                return Err(self.error("`)` expected"));
            }
            return Ok(if word == "min" { a.minimum(&b) } else { a.maximum(&b) });
        }
        Ok(Dim::symbol(word.as_str()))
    }
}
