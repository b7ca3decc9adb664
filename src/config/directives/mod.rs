//! The directive table: the single list of what a configuration may say.
//!
//! Every directive that Nginx documents has a row here with the contexts and
//! the number of arguments that Nginx gives it, and a [`Class`] that says what
//! becomes of it. Whatever has no row is unknown. `ringwall --directives`
//! prints the table, so the reference cannot disagree with the program.

mod honoured;
mod refused;
mod without_effect;

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::ops::BitOr;
use std::sync::LazyLock;

/// A set of places where a directive may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contexts(u16);

impl Contexts {
    /// Outside all blocks.
    pub const MAIN: Self = Self(1);
    /// `events`.
    pub const EVENTS: Self = Self(1 << 1);
    /// `http`.
    pub const HTTP: Self = Self(1 << 2);
    /// `server` of `http`.
    pub const SERVER: Self = Self(1 << 3);
    /// `location`.
    pub const LOCATION: Self = Self(1 << 4);
    /// `upstream`.
    pub const UPSTREAM: Self = Self(1 << 5);
    /// `if` in `server`.
    pub const SERVER_IF: Self = Self(1 << 6);
    /// `if` in `location`.
    pub const LOCATION_IF: Self = Self(1 << 7);
    /// `limit_except`.
    pub const LIMIT_EXCEPT: Self = Self(1 << 8);
    /// `stream` and what is inside.
    pub const STREAM: Self = Self(1 << 9);
    /// `mail` and what is inside.
    pub const MAIL: Self = Self(1 << 10);
    /// `match` of `health_check`.
    pub const MATCH: Self = Self(1 << 11);
    /// All of them.
    pub const ANY: Self = Self((1 << 12) - 1);

    /// Whether the two have a place in common.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Contexts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Display for Contexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("any");
        }
        let names = [
            (Self::MAIN, "main"),
            (Self::EVENTS, "events"),
            (Self::HTTP, "http"),
            (Self::SERVER, "server"),
            (Self::LOCATION, "location"),
            (Self::UPSTREAM, "upstream"),
            (Self::SERVER_IF, "if in server"),
            (Self::LOCATION_IF, "if in location"),
            (Self::LIMIT_EXCEPT, "limit_except"),
            (Self::STREAM, "stream"),
            (Self::MAIL, "mail"),
            (Self::MATCH, "match"),
        ];
        let mut first = true;
        for (context, name) in names {
            if self.intersects(context) {
                f.write_str(if first { "" } else { ", " })?;
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

/// What stands behind a directive's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// At least and at most so many words, then `;`.
    Words(usize, usize),
    /// `on` or `off`.
    Flag,
    /// At least and at most so many words, then a block.
    Block(usize, usize),
    /// Not looked at, because the directive is refused whatever follows it.
    Unchecked,
}

/// What becomes of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// As in Nginx; with what it is for.
    Honoured(&'static str),
    /// Only with these arguments, which say what happens in any case; others are
    /// refused with the reason.
    Fixed(&'static [&'static str], &'static str),
    /// Accepted, and listed once; with the reason why nothing is lost.
    NoEffect(&'static str),
    /// An error; the reason is worded to stand behind `"x" directive`.
    Refused(&'static str),
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The directive.
    pub name: &'static str,
    /// Where it may stand.
    pub contexts: Contexts,
    /// What it takes.
    pub arguments: Arguments,
    /// What becomes of it.
    pub class: Class,
}

/// Directives that share everything but their names.
#[derive(Debug, Clone, Copy)]
struct Group {
    class: Class,
    contexts: Contexts,
    arguments: Arguments,
    /// Separated by white space: a list of strings would take a line for each.
    names: &'static str,
}

/// Several rows where a name means different things in different contexts.
static TABLE: LazyLock<HashMap<&'static str, Vec<Row>>> = LazyLock::new(|| {
    let groups = [without_effect::GROUPS, refused::GROUPS].concat();
    let grouped = groups.iter().flat_map(|group| {
        group.names.split_ascii_whitespace().map(|name| Row {
            name,
            contexts: group.contexts,
            arguments: group.arguments,
            class: group.class,
        })
    });
    let mut table: HashMap<_, Vec<Row>> = HashMap::new();
    for row in honoured::ROWS.iter().copied().chain(grouped) {
        table.entry(row.name).or_default().push(row);
    }
    table
});

/// The rows of a name; none if Nginx does not know it either.
pub fn lookup(name: &[u8]) -> &'static [Row] {
    std::str::from_utf8(name)
        .ok()
        .and_then(|name| TABLE.get(name))
        .map_or(&[], Vec::as_slice)
}

/// Every row, by name.
pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = TABLE.values().flatten().copied().collect();
    rows.sort_by_key(|row| (row.name, row.contexts.0));
    rows
}

/// The table as Markdown, for `ringwall --directives`.
pub fn reference() -> String {
    let mut text = String::from("| directive | contexts | class | remark |\n|---|---|---|---|\n");
    for row in rows() {
        let (class, remark) = match row.class {
            Class::Honoured(help) => ("honoured", help.to_owned()),
            Class::Fixed(values, _) => {
                let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                ("honoured", format!("only as {}", values.join(" or ")))
            }
            Class::NoEffect(reason) => ("no effect here", reason.to_owned()),
            Class::Refused(reason) => ("refused", reason.to_owned()),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {class} | {remark} |",
            row.name, row.contexts
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_has_two_rows_in_one_context() {
        for rows in TABLE.values() {
            for (index, row) in rows.iter().enumerate() {
                for other in &rows[index + 1..] {
                    assert!(!row.contexts.intersects(other.contexts), "{}", row.name);
                }
            }
        }
    }

    #[test]
    fn the_reference_names_every_directive_once_per_meaning() {
        let reference = reference();
        assert_eq!(reference.lines().count(), rows().len() + 2);
        assert!(
            reference
                .contains("| `proxy_pass` | location, if in location, limit_except | honoured |")
        );
        assert!(reference.contains("| `sendfile` |"));
        assert!(rows().len() > 600, "{}", rows().len());
    }

    #[test]
    fn what_decides_about_access_forwarding_or_logs_is_never_without_effect() {
        for name in [
            "allow",
            "deny",
            "auth_basic",
            "auth_request",
            "limit_req",
            "limit_conn",
            "if",
            "rewrite",
            "map",
            "error_page",
            "ssl_crl",
            "proxy_ssl_verify",
            "proxy_hide_header",
            "set_real_ip_from",
            "proxy_method",
            "internal",
            "satisfy",
            "debug_connection",
        ] {
            let rows = lookup(name.as_bytes());
            assert!(!rows.is_empty(), "{name}");
            assert!(
                rows.iter()
                    .all(|row| !matches!(row.class, Class::NoEffect(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn an_unknown_name_has_no_row() {
        assert!(lookup(b"foo").is_empty());
        assert!(lookup(b"\xff").is_empty());
        assert_eq!(lookup(b"server").len(), 2);
    }
}
