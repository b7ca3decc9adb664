//! What `set`, `rewrite`, `if`, `break` and `return` of a block say, in their
//! order.

use std::sync::Arc;

use super::model::{Location, Return};
use super::regexes::Pattern;
use super::template::Template;
use super::variables::VariableId;

/// One directive of Nginx's rewrite module.
#[derive(Debug)]
pub enum Step {
    /// `set $variable VALUE`.
    Set(Assignable, Template),
    /// `rewrite REGEX REPLACEMENT [FLAG]`.
    Rewrite(Rewrite),
    /// `if (CONDITION) { … }`.
    If(Box<If>),
    /// `break`.
    Break,
    /// `return`.
    Return(Return),
}

/// What `set` may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignable {
    /// A variable of the configuration's own.
    User(VariableId),
    /// `$args`.
    Args,
    /// `$limit_rate`.
    LimitRate,
}

/// `rewrite`.
#[derive(Debug)]
pub struct Rewrite {
    /// Searched in the path.
    pub pattern: Pattern,
    /// The new path, or the address of a redirect.
    pub replacement: Template,
    /// What stands behind the first `?` of a path's replacement; a redirect's
    /// stays in the replacement.
    pub args: Option<Template>,
    /// The request's own arguments are added: the replacement does not end with
    /// `?`.
    pub keeps_args: bool,
    /// What follows.
    pub then: Then,
}

/// The flag of a `rewrite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// None: the next directive.
    Next,
    /// `last`: a location for the new path.
    Last,
    /// `break`: the request stays in its location.
    Break,
    /// `redirect`, `permanent`, or a replacement that is a whole URL: the client
    /// is sent there with this status. The flag tells whether the literal text
    /// of the replacement has a `?`.
    Redirect(u16, bool),
}

/// `if (CONDITION) { … }`.
#[derive(Debug)]
pub struct If {
    /// What must hold.
    pub condition: Condition,
    /// What then holds instead of the location's own settings; `None` in
    /// `server`, where a block can hold none.
    pub location: Option<Arc<Location>>,
    /// What then is done.
    pub steps: Box<[Step]>,
}

/// The condition of an `if`.
#[derive(Debug)]
pub enum Condition {
    /// Neither empty nor `0`.
    IsSet(Template),
    /// `=` and, negated, `!=`.
    Equals {
        /// The variable.
        value: Template,
        /// What it is compared with.
        other: Template,
        /// `!=`.
        negated: bool,
    },
    /// `~`, `~*` and, negated, `!~`, `!~*`.
    Matches {
        /// The variable.
        value: Template,
        /// Searched in it.
        pattern: Pattern,
        /// `!~`, `!~*`.
        negated: bool,
    },
    /// `-f`, `-d`, `-e`, `-x` and, with `!`, their opposites.
    File {
        /// What is asked of the file.
        test: FileTest,
        /// Its path.
        path: Template,
        /// With `!`.
        negated: bool,
    },
}

/// What a condition asks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`: a regular file.
    Regular,
    /// `-d`: a directory.
    Directory,
    /// `-e`: anything.
    Any,
    /// `-x`: anything that its owner may execute.
    Executable,
}

/// `try_files FILE… URI|=CODE`.
#[derive(Debug)]
pub struct TryFiles {
    /// Below the location's root; the first that exists is served.
    pub candidates: Vec<Candidate>,
    /// What happens if none exists.
    pub otherwise: Otherwise,
}

/// A file or a directory that may be there.
#[derive(Debug)]
pub struct Candidate {
    /// Without the slash that marks a directory.
    pub path: Template,
    /// Whether a directory is looked for.
    pub is_directory: bool,
}

/// The last parameter of `try_files`.
#[derive(Debug)]
pub enum Otherwise {
    /// A path with arguments, or `@NAME`.
    Redirect(Template),
    /// `=CODE`.
    Status(u16),
}

/// `error_page CODE… [=[CODE]] TARGET`, for one of its codes.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    /// Which status it is for, as Nginx numbers them (494–497 included).
    pub code: u16,
    /// The status that the client gets.
    pub answer: ErrorStatus,
    /// A path, `@name`, or the URL of a redirect.
    pub target: Template,
}

/// The status of an answer that takes the place of an error's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorStatus {
    /// The error's own.
    Kept,
    /// `=CODE`.
    Changed(u16),
    /// `=`: whatever the target answers.
    OfTarget,
}
