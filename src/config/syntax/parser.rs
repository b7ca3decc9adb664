//! Blocks and `include`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lexer::{LexError, Lexer, Statement};
use super::{Directive, Token, Tree, position};
use crate::config::LoadOptions;
use crate::config::error::Error;
use crate::config::model::{Position, SourceFile};
use crate::config::source::{Source, path_of};

/// Blocks within blocks, included files counted with the block that includes
/// them. Real files need four or five; the parser recurses, and so do those who
/// walk the tree, so this is what keeps the stack small.
const MAX_DEPTH: usize = 64;

/// Files that include files.
const MAX_INCLUDE_DEPTH: usize = 16;

/// Times that a file is read, repetitions counted: includes that fan out at
/// every level would otherwise multiply without end.
const MAX_FILES: usize = 10_000;

/// Bytes read in all, for the same reason; the largest real lists of addresses
/// have a few megabytes.
const MAX_TOTAL: usize = 64 << 20;

/// Reads `-g`, the file, and all that they include.
///
/// # Errors
/// A file that cannot be read, or the first thing in one that is not nginx.conf.
pub(crate) fn read(source: &dyn Source, options: &LoadOptions) -> Result<Tree, Error> {
    let main = options.prefix.join(&options.file);
    let mut parser = Parser {
        source,
        folder: main.parent().unwrap_or(Path::new("/")).to_path_buf(),
        files: Vec::new(),
        stack: Vec::new(),
        reads: 0,
        total: 0,
    };
    let mut directives = Vec::new();
    for text in &options.global_directives {
        parser.parameter(text, &mut directives)?;
    }
    parser.file(&main, None, 0, &mut directives)?;
    Ok(Tree {
        directives,
        files: parser.files,
    })
}

#[derive(Debug)]
struct Parser<'a> {
    source: &'a dyn Source,
    /// Included paths are relative to the main file's folder, whoever includes.
    folder: PathBuf,
    files: Vec<SourceFile>,
    /// The files being read, outermost first.
    stack: Vec<PathBuf>,
    reads: usize,
    total: usize,
}

/// The file that is being parsed.
#[derive(Debug)]
struct Input<'a> {
    lexer: Lexer<'a>,
    name: Arc<str>,
    parameter: bool,
}

impl Input<'_> {
    fn here(&self) -> Position {
        let line = if self.parameter { 0 } else { self.lexer.line() };
        position(&self.name, line)
    }

    fn next(&mut self) -> Result<Statement, Error> {
        let line = |line| if self.parameter { 0 } else { line };
        self.lexer.next().map_err(|LexError { message, line: at }| {
            Error::at(&position(&self.name, line(at)), message)
        })
    }
}

impl Parser<'_> {
    /// One `-g`, in which blocks are not allowed.
    fn parameter(&mut self, text: &str, into: &mut Vec<Directive>) -> Result<(), Error> {
        let mut input = Input {
            lexer: Lexer::new(text.as_bytes(), true),
            name: "command line".into(),
            parameter: true,
        };
        self.block(&mut input, 0, false, into)
    }

    fn file(
        &mut self,
        path: &Path,
        included: Option<&Position>,
        depth: usize,
        into: &mut Vec<Directive>,
    ) -> Result<(), Error> {
        let refuse = |message: String| Error {
            message,
            position: included.cloned(),
        };
        if self.stack.iter().any(|open| open == path) {
            let path = path.display();
            return Err(refuse(format!("\"{path}\" includes itself")));
        }
        if self.stack.len() == MAX_INCLUDE_DEPTH {
            return Err(refuse("files are included too deeply".to_owned()));
        }
        let content = self
            .source
            .read(path)
            .map_err(|error| refuse(open_failed(path, &error)))?;
        self.reads += 1;
        self.total = self.total.saturating_add(content.len());
        if self.reads > MAX_FILES || self.total > MAX_TOTAL {
            return Err(refuse("the configuration is too large".to_owned()));
        }
        let name: Arc<str> = path.to_string_lossy().into();
        let content: Arc<[u8]> = content.into();
        if !self.files.iter().any(|file| file.name == name) {
            self.files.push(SourceFile {
                name: name.clone(),
                content: content.clone(),
            });
        }
        self.stack.push(path.to_path_buf());
        let mut input = Input {
            lexer: Lexer::new(&content, false),
            name,
            parameter: false,
        };
        self.block(&mut input, depth, false, into)?;
        self.stack.pop();
        Ok(())
    }

    /// The statements up to `}`, or up to the end of a file.
    fn block(
        &mut self,
        input: &mut Input<'_>,
        depth: usize,
        braced: bool,
        into: &mut Vec<Directive>,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::at(&input.here(), "blocks are nested too deeply"));
        }
        loop {
            let (words, opens) = match input.next()? {
                Statement::Simple(words) => (words, false),
                Statement::BlockStart(words) => (words, true),
                Statement::BlockEnd if braced => return Ok(()),
                Statement::BlockEnd => return Err(Error::at(&input.here(), "unexpected \"}\"")),
                Statement::End if braced => {
                    let message = "unexpected end of file, expecting \"}\"";
                    return Err(Error::at(&input.here(), message));
                }
                Statement::End => return Ok(()),
            };
            if opens && input.parameter {
                let message = "block directives are not supported in -g option";
                return Err(Error::at(&input.here(), message));
            }
            let Some(mut directive) = statement(input, words) else {
                continue;
            };
            if &*directive.name.value == b"include" {
                self.include(&directive, opens, depth, into)?;
                continue;
            }
            if opens {
                let mut children = Vec::new();
                self.block(input, depth + 1, true, &mut children)?;
                directive.block = Some(children);
            }
            into.push(directive);
        }
    }

    fn include(
        &mut self,
        directive: &Directive,
        opens: bool,
        depth: usize,
        into: &mut Vec<Directive>,
    ) -> Result<(), Error> {
        let position = &directive.position;
        let refuse = |message: String| Err(Error::at(position, message));
        if opens {
            return refuse("directive \"include\" is not terminated by \";\"".to_owned());
        }
        let [pattern] = directive.args.as_slice() else {
            return refuse("invalid number of arguments in \"include\" directive".to_owned());
        };
        let path = self.folder.join(path_of(&pattern.value));
        if !pattern.value.iter().any(|byte| b"*?[".contains(byte)) {
            return self.file(&path, Some(position), depth + 1, into);
        }
        let paths = match self.source.glob(&path) {
            Ok(paths) => paths,
            Err(error) => {
                let error = system_message(&error);
                return refuse(format!("glob() \"{}\" failed{error}", path.display()));
            }
        };
        for path in paths {
            self.file(&path, Some(position), depth + 1, into)?;
        }
        Ok(())
    }
}

/// A directive without its block; `None` only for no words at all, which the
/// lexer does not produce.
fn statement(input: &Input<'_>, words: Vec<Token>) -> Option<Directive> {
    let mut words = words.into_iter();
    let name = words.next()?;
    let line = if input.parameter { 0 } else { name.line };
    Some(Directive {
        position: position(&input.name, line),
        name,
        args: words.collect(),
        block: None,
    })
}

fn open_failed(path: &Path, error: &std::io::Error) -> String {
    // Nginx opens a folder without complaint and stumbles over the first read.
    let call = match error.kind() {
        std::io::ErrorKind::IsADirectory => "pread",
        _ => "open",
    };
    let path = path.display();
    format!("{call}() \"{path}\" failed{}", system_message(error))
}

/// ` (2: No such file or directory)`, as Nginx prints errors of the system.
fn system_message(error: &std::io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => {
            let text = text
                .strip_suffix(&format!(" (os error {code})"))
                .unwrap_or(&text);
            format!(" ({code}: {text})")
        }
        None => format!(" ({text})"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::source::memory::Files;

    fn read_files(files: &[(&str, &str)]) -> Result<Vec<Directive>, String> {
        let options = LoadOptions::new("/c", "/");
        match read(&Files::new(files), &options) {
            Ok(tree) => Ok(tree.directives),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn nesting_is_bounded_in_blocks_and_in_includes() {
        let nested = |depth| "a {".repeat(depth) + &"}".repeat(depth);
        assert!(read_files(&[("/c", &nested(MAX_DEPTH))]).is_ok());
        assert_eq!(
            read_files(&[("/c", &nested(100_000))]).unwrap_err(),
            "blocks are nested too deeply in /c:1"
        );
        let names: Vec<_> = (0..20).map(|n| format!("/f{n}")).collect();
        let texts: Vec<_> = (1..21).map(|n| format!("include f{n};")).collect();
        let mut files: Vec<_> = names
            .iter()
            .zip(&texts)
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        files.push(("/c", "include f0;"));
        assert_eq!(
            read_files(&files).unwrap_err(),
            "files are included too deeply in /f14:1"
        );
    }

    #[test]
    fn includes_that_multiply_come_to_an_end() {
        let twice: Vec<_> = (0..15)
            .map(|n| {
                (
                    format!("/f{n}"),
                    format!("include f{0}; include f{0};", n + 1),
                )
            })
            .collect();
        let mut files: Vec<_> = twice
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        files.extend([("/c", "include f0;"), ("/f15", "")]);
        // One level more than is allowed would be reported as such; here the
        // number of files is what ends it.
        files.retain(|(name, _)| *name != "/f14");
        files.push(("/f14", ""));
        assert!(
            read_files(&files)
                .unwrap_err()
                .starts_with("the configuration is too large"),
        );
    }

    #[test]
    fn positions_name_the_file_that_was_included() {
        let directives = read_files(&[
            ("/c", "a;\r\nb {\r\n  include d/*;\r\n}"),
            ("/d/x", "# UTF-8 \u{d55c}\n\nc \"d\ne\" f;"),
        ])
        .unwrap();
        let inner = &directives[1].children()[0];
        assert_eq!(inner.position.to_string(), "/d/x:3");
        assert_eq!((inner.args[1].line, inner.args[1].column), (4, 4));
    }

    /// Shapes of trees, without places.
    #[derive(Debug, Clone, PartialEq)]
    struct Shape(Vec<Vec<u8>>, Option<Vec<Self>>);

    fn shape(directive: &Directive) -> Shape {
        let words = std::iter::once(&directive.name).chain(&directive.args);
        Shape(
            words.map(|word| word.value.to_vec()).collect(),
            directive
                .block
                .as_ref()
                .map(|block| block.iter().map(shape).collect()),
        )
    }

    fn print(shape: &Shape, into: &mut Vec<u8>) {
        for word in &shape.0 {
            into.push(b'"');
            for &byte in word {
                if matches!(byte, b'"' | b'\\') {
                    into.push(b'\\');
                }
                into.push(byte);
            }
            into.extend_from_slice(b"\" ");
        }
        match &shape.1 {
            None => into.push(b';'),
            Some(block) => {
                into.push(b'{');
                block.iter().for_each(|inner| print(inner, into));
                into.push(b'}');
            }
        }
    }

    fn any_shape() -> impl Strategy<Value = Shape> {
        let words = || {
            let word = proptest::collection::vec(any::<u8>(), 0..8);
            proptest::collection::vec(word, 1..4)
                .prop_filter("an include reads files", |words| words[0] != b"include")
        };
        let leaf = words().prop_map(|words| Shape(words, None));
        leaf.prop_recursive(4, 24, 4, move |inner| {
            (words(), proptest::collection::vec(inner, 0..4))
                .prop_map(|(words, block)| Shape(words, Some(block)))
        })
    }

    proptest! {
        #[test]
        fn a_printed_tree_is_read_back_as_it_was(shapes in proptest::collection::vec(any_shape(), 0..4)) {
            let mut text = Vec::new();
            shapes.iter().for_each(|shape| print(shape, &mut text));
            let files = Files([("/c".into(), text)].into());
            let tree = read(&files, &LoadOptions::new("/c", "/")).unwrap();
            let back: Vec<_> = tree.directives.iter().map(shape).collect();
            prop_assert_eq!(back, shapes);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused_with_a_place(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"{};\"'\\$#\n ab".to_vec())],
                0..300,
            )
        ) {
            let files = Files([("/c".into(), bytes)].into());
            if let Err(error) = read(&files, &LoadOptions::new("/c", "/")) {
                prop_assert!(error.position.is_some());
            }
        }
    }
}
