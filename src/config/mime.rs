//! `types`: which content type an extension stands for.

use std::collections::HashMap;
use std::sync::Arc;

/// Longest extension that is looked up, bytes: longer than any in Nginx's
/// `mime.types`, and small enough for a buffer on the stack.
const MAX_EXTENSION: usize = 32;

/// Content types by extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MimeTypes {
    by_extension: HashMap<Box<[u8]>, Arc<str>>,
}

impl Default for MimeTypes {
    /// Nginx's own three, which hold where no `types` is given.
    fn default() -> Self {
        let mut types = Self::empty();
        types.insert(b"html", &"text/html".into());
        types.insert(b"gif", &"image/gif".into());
        types.insert(b"jpg", &"image/jpeg".into());
        types
    }
}

impl MimeTypes {
    /// `types { }`: everything is of the default type.
    pub fn empty() -> Self {
        Self {
            by_extension: HashMap::new(),
        }
    }

    /// Adds an extension; gives the type that it had before.
    pub(crate) fn insert(&mut self, extension: &[u8], mime: &Arc<str>) -> Option<Arc<str>> {
        self.by_extension
            .insert(extension.to_ascii_lowercase().into(), mime.clone())
    }

    /// The type of a normalised path, by the extension of its last segment in
    /// any case; `None` means the `default_type`. A name that is all extension
    /// (`/.html`) has none, as in Nginx.
    pub fn of_path(&self, path: &[u8]) -> Option<&str> {
        let segment = path.rsplit(|&byte| byte == b'/').next()?;
        let dot = segment.iter().rposition(|&byte| byte == b'.')?;
        let extension = segment.get(dot + 1..)?;
        if dot == 0 {
            return None;
        }
        let mut lower = [0; MAX_EXTENSION];
        let lower = lower.get_mut(..extension.len())?;
        lower.copy_from_slice(extension);
        lower.make_ascii_lowercase();
        self.by_extension.get(&*lower).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_type_of_its_last_extension_in_any_case() {
        let types = MimeTypes::default();
        assert_eq!(types.of_path(b"/a/b.tar.HTML"), Some("text/html"));
        assert_eq!(types.of_path(b"/x.jpg"), Some("image/jpeg"));
        assert_eq!(types.of_path(b"/a.html/b"), None);
        assert_eq!(types.of_path(b"/.html"), None);
        assert_eq!(types.of_path(b"/x."), None);
        assert_eq!(types.of_path(b"/"), None);
        assert_eq!(types.of_path(b""), None);
        assert_eq!(types.of_path(&[b'.'; 200]), None);
        assert_eq!(MimeTypes::empty().of_path(b"/x.html"), None);
    }
}
