//! What the threads that serve open of the file system: the sandbox lets them
//! have this and nothing else.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::config::template::{Part, Template};

/// Files and folders, each with all that is below it. What only a start or a
/// reload reads (certificates, keys, lists) is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Read to be sent: `root` and `alias`.
    pub files: BTreeSet<PathBuf>,
    /// Read to look passwords up: the folders of `auth_basic_user_file`, because
    /// such a file is replaced by another one of its name.
    pub passwords: BTreeSet<PathBuf>,
    /// Read to show upstreams who we are: the folders of `proxy_ssl_certificate`
    /// and its key, where they have variables.
    pub certificates: BTreeSet<PathBuf>,
    /// Written to under names that requests make: `access_log` with variables.
    pub logs: BTreeSet<PathBuf>,
}

impl Reach {
    /// Whether a folder or one above it is among these.
    pub fn covers(paths: &BTreeSet<PathBuf>, path: &Path) -> bool {
        path.ancestors().any(|above| paths.contains(above))
    }
}

/// The path if no request has a say in it; otherwise the folder that holds
/// whatever the path turns out to be.
pub(crate) fn fixed_part(path: &Template) -> PathBuf {
    if let Some(literal) = path.as_literal() {
        return PathBuf::from(OsStr::from_bytes(literal));
    }
    match path.parts.first() {
        Some(Part::Literal(beginning)) => folder_of(beginning),
        _ => PathBuf::from("/"),
    }
}

/// Up to the last slash: what follows is the beginning of a name.
fn folder_of(path: &[u8]) -> PathBuf {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => PathBuf::from("/"),
        Some(end) => PathBuf::from(OsStr::from_bytes(&path[..end])),
        // Of whatever folder the path is relative to.
        None => PathBuf::new(),
    }
}

/// The folder of a file that is replaced rather than written.
pub(crate) fn fixed_folder(file: &Template) -> PathBuf {
    let fixed = fixed_part(file);
    match file.as_literal() {
        Some(_) => fixed.parent().unwrap_or(Path::new("/")).to_owned(),
        None => fixed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn template(text: &str) -> Template {
        Template::compile(text.as_bytes(), &HashMap::new()).unwrap()
    }

    #[test]
    fn variables_widen_a_path_to_the_folder_before_them() {
        for (path, part, folder) in [
            ("/srv/www", "/srv/www", "/srv"),
            ("/srv/$host", "/srv", "/srv"),
            ("/srv/site-$host/public", "/srv", "/srv"),
            ("$document_root/a", "/", "/"),
            ("/$host", "/", "/"),
            ("certs/$host", "certs", "certs"),
            ("c-$host", "", ""),
        ] {
            assert_eq!(fixed_part(&template(path)), Path::new(part), "{path}");
            assert_eq!(fixed_folder(&template(path)), Path::new(folder), "{path}");
        }
    }

    #[test]
    fn a_folder_covers_what_is_below_it_and_not_its_namesakes() {
        let paths = BTreeSet::from([PathBuf::from("/var/log/www")]);
        assert!(Reach::covers(&paths, Path::new("/var/log/www")));
        assert!(Reach::covers(&paths, Path::new("/var/log/www/a")));
        assert!(!Reach::covers(&paths, Path::new("/var/log/www2")));
        assert!(!Reach::covers(&paths, Path::new("/var/log")));
    }
}
