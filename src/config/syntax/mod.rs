//! From bytes to a tree of directives, each with its place.
//!
//! The lexer follows `ngx_conf_read_token` to the letter, because operators
//! rely on its oddities: a `#` inside a word is an ordinary byte, `\.` keeps
//! its backslash, a quoted string may span lines. The parser nests blocks and
//! splices included files in; it knows no directive but `include`.

mod lexer;
mod parser;

use std::borrow::Cow;
use std::sync::Arc;

pub(crate) use parser::read;

use super::model::{Position, SourceFile};

/// The whole configuration: `-g` first, then the file and all it includes.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) directives: Vec<Directive>,
    pub(crate) files: Vec<SourceFile>,
}

/// A name, its arguments, and a block where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Directive {
    pub(crate) name: Token,
    pub(crate) args: Vec<Token>,
    pub(crate) block: Option<Vec<Self>>,
    /// The line on which the name stands. Nginx names the line on which the
    /// directive ends, which for a missing semicolon is the next one.
    pub(crate) position: Position,
}

/// A word, with quotes and escapes resolved. Any bytes: UTF-8 is not asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) value: Box<[u8]>,
    /// Counted from 1.
    pub(crate) line: u32,
    /// In bytes, counted from 1; where an opening quote stands, if there is one.
    pub(crate) column: u32,
}

impl Token {
    /// For messages, and for what is compared with ASCII words.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }
}

impl Directive {
    /// The name, for messages.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        self.name.text()
    }

    /// An argument that the directive table promises.
    pub(crate) fn arg(&self, index: usize) -> &[u8] {
        self.args.get(index).map_or(b"", |token| &token.value)
    }

    /// As [`Self::arg`], for messages.
    pub(crate) fn text(&self, index: usize) -> Cow<'_, str> {
        String::from_utf8_lossy(self.arg(index))
    }

    /// What the block holds; nothing where there is none.
    pub(crate) fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// The place of a line in a file.
fn position(file: &Arc<str>, line: u32) -> Position {
    Position {
        file: file.clone(),
        line,
    }
}
