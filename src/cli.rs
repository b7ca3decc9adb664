//! The command line: Nginx's flags, and the sub-commands of our own.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser, Subcommand};

use crate::config::{LoadOptions, LogTarget};

/// Where the configuration is when nobody says.
const DEFAULT_FILE: &str = "/etc/ringwall/ringwall.conf";
const DEFAULT_PREFIX: &str = "/etc/ringwall";
const DEFAULT_PID: &str = "/run/ringwall.pid";
const DEFAULT_LOGS: &str = "/var/log/ringwall";

/// A TLS and mutual-TLS terminator and reverse proxy that reads nginx.conf.
#[derive(Debug, Parser)]
#[command(
    name = "ringwall",
    disable_help_flag = true,
    disable_version_flag = true
)]
pub struct Cli {
    /// This help
    #[arg(short = 'h', short_alias = '?', long = "help", action = ArgAction::Help)]
    help: Option<bool>,
    /// Show version and exit
    #[arg(short = 'v')]
    pub version: bool,
    /// Show version, TLS library and capabilities, and exit
    #[arg(short = 'V')]
    pub capabilities: bool,
    /// Test configuration and exit
    #[arg(short = 't')]
    pub test: bool,
    /// With -t, list each directive with its class, file and line first
    #[arg(long = "explain", requires = "test")]
    pub explain: bool,
    /// Test configuration, dump it and exit
    #[arg(short = 'T')]
    pub dump: bool,
    /// Suppress non-error messages during configuration testing
    #[arg(short = 'q')]
    pub quiet: bool,
    /// Send signal to the running process
    #[arg(short = 's', value_name = "SIGNAL", value_parser = ["stop", "quit", "reopen", "reload"])]
    pub signal: Option<String>,
    /// Set prefix path [default: /etc/ringwall]
    #[arg(short = 'p', value_name = "PREFIX")]
    pub prefix: Option<PathBuf>,
    /// Set error log file, or "stderr" [default: /var/log/ringwall/error.log]
    #[arg(short = 'e', value_name = "FILE")]
    pub error_log: Option<PathBuf>,
    /// Set configuration file [default: /etc/ringwall/ringwall.conf]
    #[arg(short = 'c', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Set global directives out of configuration file
    #[arg(short = 'g', value_name = "DIRECTIVES")]
    pub directives: Vec<String>,
    /// List the directives that are honoured, without effect or refused
    #[arg(long = "directives")]
    pub reference: bool,
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<SubCommand>,
}

/// What ringwall does that Nginx does not.
#[derive(Debug, Subcommand)]
pub enum SubCommand {
    /// Serve a throw-away mutual-TLS gateway on this machine, to be tried out
    Demo {
        /// The port to serve HTTPS on
        #[arg(long, default_value_t = 8443)]
        port: u16,
    },
}

impl Cli {
    /// Where the configuration is and what its paths are relative to.
    pub fn load_options(&self) -> LoadOptions {
        let mut options = match &self.prefix {
            Some(prefix) => {
                let file = self.file.clone().unwrap_or_else(|| "ringwall.conf".into());
                LoadOptions::new(absolute(prefix, &file), absolute(Path::new(""), prefix))
            }
            None => {
                let file = self.file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
                let mut options =
                    LoadOptions::new(absolute(Path::new(DEFAULT_PREFIX), &file), DEFAULT_PREFIX);
                options.default_pid = DEFAULT_PID.into();
                options.default_error_log =
                    LogTarget::File(Path::new(DEFAULT_LOGS).join("error.log"));
                options.default_access_log =
                    LogTarget::File(Path::new(DEFAULT_LOGS).join("access.log"));
                options
            }
        };
        if let Some(path) = &self.error_log {
            options.default_error_log = match path.to_str() {
                Some("stderr") => LogTarget::Stderr,
                _ => LogTarget::File(absolute(&options.prefix, path)),
            };
        }
        options.global_directives.clone_from(&self.directives);
        options
    }
}

/// Relative to `base`, which is relative to the current folder.
fn absolute(base: &Path, path: &Path) -> PathBuf {
    let joined = base.join(path);
    std::path::absolute(&joined).unwrap_or(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> LoadOptions {
        Cli::try_parse_from(["ringwall"].iter().chain(arguments))
            .unwrap()
            .load_options()
    }

    #[test]
    fn paths_are_relative_to_the_prefix() {
        let options = options(&["-p", "/srv/x", "-c", "a.conf", "-e", "logs/e.log"]);
        assert_eq!(options.file, Path::new("/srv/x/a.conf"));
        assert_eq!(
            options.default_error_log,
            LogTarget::File("/srv/x/logs/e.log".into())
        );
    }

    #[test]
    fn without_arguments_the_system_paths_hold() {
        let options = options(&[]);
        assert_eq!(options.file, Path::new(DEFAULT_FILE));
        assert_eq!(options.default_pid, Path::new(DEFAULT_PID));
    }

    #[test]
    fn nginx_flags_combine() {
        let cli =
            Cli::try_parse_from(["ringwall", "-tq", "-g", "daemon off;", "-g", "pid x;"]).unwrap();
        assert!(cli.test && cli.quiet);
        assert_eq!(cli.directives, ["daemon off;", "pid x;"]);
        assert!(Cli::try_parse_from(["ringwall", "-s", "restart"]).is_err());
        assert!(Cli::try_parse_from(["ringwall", "-t", "--explain"]).is_ok());
        assert!(Cli::try_parse_from(["ringwall", "--explain"]).is_err());
    }
}
