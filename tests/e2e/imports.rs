//! Imports point one way, so that a layer can be read, tested and replaced
//! without those above it.

use std::fs;
use std::path::{Path, PathBuf};

/// (folder, what it may import of the crate, itself aside).
const LAYERS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("http", &[]),
    ("net", &[]),
    ("telemetry", &[]),
    ("tls", &["config"]),
    ("proxy", &["config", "tls", "net", "http", "telemetry"]),
    (
        "runtime",
        &["config", "tls", "net", "http", "telemetry", "proxy"],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below a folder with its code: no comments, no string
/// contents, and nothing of the test module at its end.
fn code(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(code(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let text = text
                .split("\n#[cfg(test)]\nmod ")
                .next()
                .unwrap_or_default();
            files.push((path, stripped(text)));
        }
    }
    files
}

/// Comments and the contents of plain strings taken out, line by line.
fn stripped(text: &str) -> String {
    text.lines()
        .map(|line| {
            let mut kept = String::new();
            let mut quoted = false;
            let mut characters = line.chars().peekable();
            while let Some(c) = characters.next() {
                match c {
                    '\\' if quoted => drop(characters.next()),
                    '"' => quoted = !quoted,
                    '/' if !quoted && characters.peek() == Some(&'/') => break,
                    c if !quoted => kept.push(c),
                    _ => {}
                }
            }
            kept + "\n"
        })
        .collect()
}

/// Whether a name occurs as a word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(start, _)| {
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        edge(code[..start].chars().next_back()) && edge(code[start + word.len()..].chars().next())
    })
}

/// The modules behind each `crate::`, groups (`crate::{a::b, c}`) included.
fn crate_modules(code: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut modules = Vec::new();
    for (start, found) in code.match_indices("crate::") {
        let rest = &code[start + found.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => {
                        modules.push(word(item.trim()));
                        item.clear();
                        continue;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                item.push(c);
            }
            modules.push(word(item.trim()));
        } else {
            modules.push(word(rest));
        }
    }
    modules.retain(|module| !module.is_empty());
    modules
}

#[test]
fn each_layer_imports_only_what_lies_below_it() {
    let mut wrong = Vec::new();
    for (layer, allowed) in LAYERS {
        for (path, code) in code(&source().join(layer)) {
            for module in crate_modules(&code) {
                if module != *layer && !allowed.contains(&module.as_str()) {
                    wrong.push(format!("{} imports crate::{module}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_program_itself_imports_command_line_configuration_runtime_and_demo_only() {
    let text = fs::read_to_string(source().join("main.rs")).expect("main.rs");
    let code = stripped(&text).replace("ringwall::", "crate::");
    for module in crate_modules(&code) {
        assert!(
            matches!(module.as_str(), "cli" | "config" | "runtime" | "demo"),
            "main.rs imports {module}"
        );
    }
}

/// The files outside these places whose code names a word.
fn strays(word: &str, places: &[&str]) -> Vec<String> {
    code(&source())
        .into_iter()
        .filter(|(path, _)| {
            let inside = path.strip_prefix(source()).expect("below src");
            !places.iter().any(|place| inside.starts_with(place))
        })
        .filter(|(_, code)| names(code, word))
        .map(|(path, _)| path.display().to_string())
        .collect()
}

#[test]
fn only_net_and_runtime_name_monoio() {
    assert_eq!(strays("monoio", &["net", "runtime"]), Vec::<String>::new());
}

#[test]
fn only_tls_names_rustls() {
    assert_eq!(strays("rustls", &["tls"]), Vec::<String>::new());
}

#[test]
fn unsafe_code_lives_in_one_file() {
    assert_eq!(strays("unsafe", &["net/buffers.rs"]), Vec::<String>::new());
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<PathBuf> = code(&source())
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| !fs::read_to_string(path).expect("UTF-8").starts_with("//!"))
        .collect();
    assert_eq!(silent, Vec::<PathBuf>::new());
}
