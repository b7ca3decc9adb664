//! Small configurations, each whole, against what must become of them.

mod balancing;
mod coverage;
mod model;
mod refusals;

use super::*;
use crate::config::model::*;
use crate::config::source::memory::{Files, Hosts};
use crate::config::{FoundLocation, parse_and_build};

fn load_files(files: &[(&str, &str)], globals: &[&str]) -> Result<Config> {
    let mut options = LoadOptions::new("conf/nginx.conf", "/p");
    options.default_port = 80;
    options.global_directives = globals.iter().map(|&text| text.to_owned()).collect();
    parse_and_build(&Files::new(files), &Hosts, &options)
}

/// A whole file.
fn load(text: &str) -> Result<Config> {
    load_files(&[("/p/conf/nginx.conf", text)], &[])
}

/// The inside of `http`.
fn http(text: &str) -> Result<Config> {
    load(&format!("events {{}} http {{ {text} }}"))
}

/// The inside of the one server.
fn server(text: &str) -> Result<Config> {
    http(&format!("server {{ {text} }}"))
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

fn location<'a>(config: &'a Config, path: &str) -> &'a Location {
    match config.servers[0].locations.find(path.as_bytes()).unwrap() {
        FoundLocation::Location { location, .. } => location,
        other => panic!("{path}: {other:?}"),
    }
}

fn proxy<'a>(config: &'a Config, path: &str) -> &'a Proxy {
    match &location(config, path).handler {
        Handler::Proxy(proxy) => proxy,
        other => panic!("{path}: {other:?}"),
    }
}
