//! Why a configuration was refused, in Nginx's own words.

use std::fmt;

use super::model::Position;

/// A configuration that cannot be used. `Display` prints what Nginx would
/// print behind `[emerg] `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Without the position.
    pub message: String,
    /// Where; `None` for what has no place, such as a missing main file.
    pub position: Option<Position>,
}

impl Error {
    /// A refusal that has a place.
    pub(crate) fn at(position: &Position, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: Some(position.clone()),
        }
    }

    /// A refusal of the configuration as a whole.
    pub(crate) fn global(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.position {
            Some(position) => write!(f, "{} in {position}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_in_nginx() {
        let position = Position {
            file: "/etc/x.conf".into(),
            line: 12,
        };
        assert_eq!(
            Error::at(&position, "unknown directive \"foo\"").to_string(),
            "unknown directive \"foo\" in /etc/x.conf:12"
        );
        let command_line = Position {
            file: "command line".into(),
            line: 0,
        };
        assert_eq!(
            Error::at(&command_line, "unknown directive \"foo\"").to_string(),
            "unknown directive \"foo\" in command line"
        );
        assert_eq!(
            Error::global("no \"events\" section in configuration").to_string(),
            "no \"events\" section in configuration"
        );
    }
}
