//! What a location says about files.

use std::path::Path;
use std::sync::Arc;

use crate::config::template::Template;

/// Where files are and how they are told to clients.
#[derive(Debug)]
pub struct Files {
    /// `root` or `alias`. Default `root html`.
    pub root: Root,
    /// `index`, in the order in which they are tried. Default `index.html`.
    pub index: Vec<Template>,
    /// `etag`. Default on.
    pub etag: bool,
    /// `if_modified_since`. Default exact.
    pub if_modified_since: IfModifiedSince,
    /// `max_ranges`; more are answered as if none had been asked for, and 0
    /// turns ranges off. Default: any number.
    pub max_ranges: u64,
    /// `autoindex`. Default off.
    pub autoindex: Option<AutoIndex>,
    /// `disable_symlinks`. Default off.
    pub symlinks: Symlinks,
}

/// `root` or `alias`.
#[derive(Debug, Clone)]
pub struct Root {
    /// The folder, absolute unless it begins with a variable; of `root` without
    /// a final slash where no request has a say in it.
    pub path: Template,
    /// How the URI continues it.
    pub kind: RootKind,
    /// What a path that turns out to be relative is relative to.
    pub prefix: Arc<Path>,
}

/// How a URI continues the path of `root` or `alias`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKind {
    /// `root`: as a whole.
    Root,
    /// `alias` in a location by prefix: without the location's name, which is
    /// this. Locations inside inherit it with the name.
    Alias(Arc<[u8]>),
    /// `alias` in a location by regular expression: not at all.
    Whole,
}

/// `if_modified_since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// The field is not looked at: the file counts as modified.
    Off,
    /// Not modified if the times are the same.
    Exact,
    /// Not modified if the file is not younger.
    Before,
}

/// `autoindex on` and its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoIndex {
    /// `autoindex_format`. Default html.
    pub format: AutoIndexFormat,
    /// `autoindex_exact_size`, of html. Default on.
    pub exact_size: bool,
    /// `autoindex_localtime`, of html. Default off.
    pub local_time: bool,
}

/// `autoindex_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the directive's own words")]
pub enum AutoIndexFormat {
    Html,
    Json,
}

/// `disable_symlinks`.
#[derive(Debug, Clone, Default)]
pub enum Symlinks {
    /// `off`: they are followed.
    #[default]
    Allowed,
    /// `on`: a path with one is forbidden.
    Denied(SymlinksFrom),
    /// `if_not_owner`: forbidden where the link and what it leads to belong to
    /// different users.
    SameOwner(SymlinksFrom),
}

/// `from=`: the part of the path that is not checked; `None` for all of it.
pub type SymlinksFrom = Option<Arc<Template>>;

/// `charset`.
#[derive(Debug, Clone)]
pub struct Charset {
    /// Its name; empty adds nothing.
    pub name: Template,
    /// `charset_types`.
    pub types: Arc<TypeSet>,
}

/// Content types that a filter looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeSet {
    any: bool,
    /// In lower case.
    types: Vec<Box<[u8]>>,
}

impl TypeSet {
    /// These and, as in every such list of Nginx's, `text/html`; `*` stands
    /// for all.
    pub(crate) fn new<'a>(types: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut set = Self {
            any: false,
            types: vec![b"text/html".as_slice().into()],
        };
        for name in types {
            let name = name.to_ascii_lowercase().into_boxed_slice();
            set.any |= *name == *b"*";
            if !set.types.contains(&name) {
                set.types.push(name);
            }
        }
        set
    }

    /// Whether a content type is among them; its parameters do not count.
    pub fn contains(&self, content_type: &[u8]) -> bool {
        let name = content_type
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        self.any
            || self
                .types
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }
}
