//! `root`, `alias` and what else a location says about files.

use std::path::Path;
use std::sync::Arc;

use super::values::{flag, not_implemented, number, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::model::{
    AutoIndex, AutoIndexFormat, Charset, Files, IfModifiedSince, Root, RootKind, Symlinks, TypeSet,
    fixed_part,
};
use crate::config::syntax::Directive;
use crate::config::template::{Part, Template, Variable};

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct FileSettings {
    root: Option<Root>,
    index: Option<Vec<Template>>,
    etag: Option<bool>,
    if_modified_since: Option<IfModifiedSince>,
    max_ranges: Option<u64>,
    autoindex: Option<bool>,
    autoindex_format: Option<AutoIndexFormat>,
    autoindex_exact_size: Option<bool>,
    autoindex_localtime: Option<bool>,
    symlinks: Option<Symlinks>,
    charset: Option<Template>,
    source_charset: Option<Box<[u8]>>,
    charset_types: Option<Arc<TypeSet>>,
}

impl FileSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"root" => self.root(builder, d, RootKind::Root)?,
            b"index" => self.index(builder, d)?,
            b"etag" => set(&mut self.etag, d, flag(d)?)?,
            b"if_modified_since" => {
                let value = match d.arg(0) {
                    b"off" => IfModifiedSince::Off,
                    b"exact" => IfModifiedSince::Exact,
                    b"before" => IfModifiedSince::Before,
                    _ => return Err(invalid_word(d)),
                };
                set(&mut self.if_modified_since, d, value)?;
            }
            b"max_ranges" => set(&mut self.max_ranges, d, number(d)?)?,
            b"autoindex" => set(&mut self.autoindex, d, flag(d)?)?,
            b"autoindex_format" => {
                let value = match d.arg(0) {
                    b"html" => AutoIndexFormat::Html,
                    b"json" => AutoIndexFormat::Json,
                    word @ (b"xml" | b"jsonp") => return Err(not_implemented(d, word)),
                    _ => return Err(invalid_word(d)),
                };
                set(&mut self.autoindex_format, d, value)?;
            }
            b"autoindex_exact_size" => set(&mut self.autoindex_exact_size, d, flag(d)?)?,
            b"autoindex_localtime" => set(&mut self.autoindex_localtime, d, flag(d)?)?,
            b"disable_symlinks" => {
                let value = symlinks(builder, d)?;
                set(&mut self.symlinks, d, value)?;
            }
            b"charset" => {
                let value = match d.arg(0) {
                    b"off" => Template::default(),
                    name => builder.template(name, &d.position)?,
                };
                set(&mut self.charset, d, value)?;
                self.check_charsets(d)?;
            }
            b"source_charset" => {
                let value = Some(d.arg(0)).filter(|name| *name != b"off");
                set(
                    &mut self.source_charset,
                    d,
                    value.unwrap_or_default().into(),
                )?;
                self.check_charsets(d)?;
            }
            b"charset_types" => {
                let types = TypeSet::new(d.args.iter().map(|word| &*word.value));
                set(&mut self.charset_types, d, Arc::new(types))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `alias`, which belongs to a location; the kind follows from its name.
    pub(super) fn alias(
        &mut self,
        builder: &mut Builder<'_>,
        d: &Directive,
        kind: RootKind,
    ) -> Result<()> {
        self.root(builder, d, kind)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            root, index, etag, if_modified_since, max_ranges, autoindex, autoindex_format,
            autoindex_exact_size, autoindex_localtime, symlinks, charset, source_charset,
            charset_types
        );
    }

    /// What holds, with Nginx's defaults.
    pub(super) fn finish(&self, builder: &Builder<'_>) -> Files {
        let prefix: Arc<Path> = builder.options.prefix.as_path().into();
        let autoindex = AutoIndex {
            format: self.autoindex_format.unwrap_or(AutoIndexFormat::Html),
            exact_size: self.autoindex_exact_size.unwrap_or(true),
            local_time: self.autoindex_localtime.unwrap_or(false),
        };
        let root = self.root.clone().unwrap_or_else(|| Root {
            path: absolute(Template::literal(b"html"), &prefix),
            kind: RootKind::Root,
            prefix,
        });
        let reached = fixed_part(&root.path);
        builder.reach.borrow_mut().files.insert(reached);
        Files {
            root,
            index: self
                .index
                .clone()
                .unwrap_or_else(|| vec![Template::literal(b"index.html")]),
            etag: self.etag.unwrap_or(true),
            if_modified_since: self.if_modified_since.unwrap_or(IfModifiedSince::Exact),
            max_ranges: self.max_ranges.unwrap_or(u64::MAX),
            autoindex: self.autoindex.unwrap_or(false).then_some(autoindex),
            symlinks: self.symlinks.clone().unwrap_or_default(),
        }
    }

    /// `charset`, unless it is off.
    pub(super) fn charset(&self) -> Option<Charset> {
        const DEFAULT: [&[u8]; 5] = [
            b"text/xml",
            b"text/plain",
            b"text/vnd.wap.wml",
            b"application/javascript",
            b"application/rss+xml",
        ];
        let name = self.charset.clone()?;
        if name.as_literal() == Some(b"") {
            return None;
        }
        let types = self
            .charset_types
            .clone()
            .unwrap_or_else(|| Arc::new(TypeSet::new(DEFAULT)));
        Some(Charset { name, types })
    }

    fn root(&mut self, builder: &mut Builder<'_>, d: &Directive, kind: RootKind) -> Result<()> {
        if let Some(before) = &self.root {
            let word = match before.kind {
                RootKind::Root => "root",
                RootKind::Alias(_) | RootKind::Whole => "alias",
            };
            if d.name() == word {
                return Err(refuse_directive(d, "is duplicate"));
            }
            let what =
                format!("directive is duplicate, \"{word}\" directive was specified earlier");
            return Err(refuse(d, format!("\"{}\" {what}", d.name())));
        }
        let mut path = builder.template(d.arg(0), &d.position)?;
        let own = |variable: &Variable| match variable {
            Variable::DocumentRoot => Some("document_root"),
            Variable::RequestFilename => Some("request_filename"),
            _ => None,
        };
        if let Some(name) = path.variables().find_map(own) {
            let name = format!(
                "the ${name} variable may not be used in the \"{}\" directive",
                d.name()
            );
            return Err(refuse(d, name));
        }
        let prefix: Arc<Path> = builder.options.prefix.as_path().into();
        path = absolute(path, &prefix);
        if kind == RootKind::Root
            && let Some(literal) = path.as_literal()
        {
            path = Template::literal(literal.strip_suffix(b"/").unwrap_or(literal));
        }
        self.root = Some(Root { path, kind, prefix });
        Ok(())
    }

    fn index(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
        for (position, word) in d.args.iter().enumerate() {
            if word.value.is_empty() {
                let message = format!("index \"{}\" in \"index\" directive is invalid", d.text(0));
                return Err(refuse(d, message));
            }
            if word.value.starts_with(b"/") && position + 1 < d.args.len() {
                let text = "only the last index in \"index\" directive should be absolute";
                builder.warn(&d.position, text);
            }
            let template = builder.template(&word.value, &d.position)?;
            self.index.get_or_insert_default().push(template);
        }
        Ok(())
    }

    /// Charsets that differ mean recoding, for which Nginx wants a
    /// `charset_map`.
    fn check_charsets(&self, d: &Directive) -> Result<()> {
        let (Some(name), Some(source)) = (&self.charset, &self.source_charset) else {
            return Ok(());
        };
        match name.as_literal() {
            _ if source.is_empty() => Ok(()),
            Some(b"") => Ok(()),
            Some(name) if name.eq_ignore_ascii_case(source) => Ok(()),
            name => {
                let from = String::from_utf8_lossy(source);
                let to = String::from_utf8_lossy(name.unwrap_or(b"a variable"));
                let message =
                    format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
                Err(refuse(d, message))
            }
        }
    }
}

fn symlinks(builder: &Builder<'_>, d: &Directive) -> Result<Symlinks> {
    let (mut mode, mut from) = (None, None);
    for word in &d.args {
        let named = word.value.strip_prefix(b"from=");
        match (&*word.value, named) {
            (_, Some(path)) if !path.is_empty() => {
                from = Some(Arc::new(builder.template(path, &d.position)?));
            }
            (b"off" | b"on" | b"if_not_owner", _) => mode = Some(&*word.value),
            _ => {
                let text = word.text();
                return Err(refuse(d, format!("invalid parameter \"{text}\"")));
            }
        }
    }
    match mode {
        Some(b"off") if from.is_some() => {
            let message = "duplicate parameters in \"disable_symlinks\" directive";
            Err(refuse(d, message))
        }
        Some(b"off") => Ok(Symlinks::Allowed),
        Some(b"on") => Ok(Symlinks::Denied(from)),
        Some(_) => Ok(Symlinks::SameOwner(from)),
        None => {
            let message =
                "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter";
            Err(refuse(d, message))
        }
    }
}

/// A path that begins with text, made absolute.
fn absolute(mut path: Template, prefix: &Path) -> Template {
    use std::os::unix::ffi::OsStrExt;
    let relative_to = |text: &[u8]| -> Box<[u8]> {
        let mut joined = prefix.as_os_str().as_bytes().to_vec();
        if !joined.ends_with(b"/") {
            joined.push(b'/');
        }
        joined.extend_from_slice(text);
        joined.into()
    };
    match path.parts.first_mut() {
        Some(Part::Literal(text)) if !text.starts_with(b"/") => *text = relative_to(text),
        Some(_) => {}
        None => return Template::literal(&relative_to(b"")),
    }
    path
}

fn invalid_word(d: &Directive) -> crate::config::Error {
    refuse(d, format!("invalid value \"{}\"", d.text(0)))
}
