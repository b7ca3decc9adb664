//! `ringwall demo`: one command on a fresh clone shows what works and what is
//! refused, with lines to copy.

use std::process::{Child, Command, Stdio};

use crate::support::ringwall::{Site, binary};
use crate::support::{eventually, free_port, tools};

struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_prints_a_line_that_works_and_one_that_is_refused() {
    let site = Site::new();
    let output = std::fs::File::create(site.file("said.txt")).expect("writable");
    let errors = output.try_clone().expect("a second handle");
    let port = free_port().to_string();
    let mut demo = Demo(
        Command::new(binary())
            .args(["demo", "--port", &port])
            .current_dir(site.path())
            .env("TMPDIR", site.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .expect("the binary under test"),
    );
    let lines: Vec<String> = eventually("the demo prints its curl lines", || {
        assert!(
            demo.0.try_wait().expect("our child").is_none(),
            "{}",
            site.read("said.txt")
        );
        let lines: Vec<String> = site
            .read("said.txt")
            .lines()
            .map(|line| line.trim().trim_start_matches("$ ").to_owned())
            .filter(|line| line.starts_with("curl "))
            .collect();
        (lines.len() >= 2).then_some(lines)
    });
    let (works, refused): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line.contains("--cert "));
    assert!(!works.is_empty() && !refused.is_empty(), "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(&port)), "{lines:?}");
    for line in works {
        // The listener may come up behind the print.
        let body = eventually("the working line works", || {
            let outcome = tools::shell(site.path(), line);
            outcome.ok().then_some(outcome.stdout)
        });
        assert!(!body.is_empty(), "{line}");
    }
    for line in refused {
        let outcome = tools::shell(site.path(), line);
        assert!(
            !outcome.ok() && outcome.stdout.is_empty(),
            "{line}: {outcome:?}"
        );
    }
    let said = site.read("said.txt");
    for word in ["reload", "wrk"] {
        assert!(said.contains(word), "{word} in {said}");
    }
}
