//! `seccomp` and `landlock`: what the threads that hear from the network cannot
//! do, and that reloads and upgrades can all the same.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::client::{Connection, Response};
use crate::support::eventually;
use crate::support::ringwall::{Ringwall, Site, http};

/// The value of a line in the status of each thread, by the thread's name.
fn of_each_thread(ringwall: &Ringwall, field: &str) -> Vec<(String, String)> {
    let tasks = format!("/proc/{}/task", ringwall.pid());
    let threads = fs::read_dir(tasks).expect("it runs");
    threads
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            // One that has ended meanwhile is not looked at.
            let text = fs::read_to_string(path.join("status")).ok()?;
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            Some((value("Name:")?, value(field)?))
        })
        .collect()
}

fn get(ringwall: &Ringwall, target: &str) -> Response {
    Connection::plain(ringwall.address("HTTP")).get("a", target)
}

/// A file below a folder of that name.
fn file_in(site: &Site, folder: &str, name: &str, content: &str) {
    let folder = site.file(folder);
    fs::create_dir_all(&folder).expect("ours");
    fs::write(folder.join(name), content).expect("ours");
}

fn serving(root: &str) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; root @DIR@/{root}; }}"
    ))
}

#[test]
fn every_thread_but_the_main_one_is_confined_and_the_log_says_so() {
    let mut site = Site::new();
    file_in(&site, "www", "a", "hello");
    site.write("users", "joe:{PLAIN}secret\n");
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@HTTP@; root @DIR@/www;\n\
         location /closed { auth_basic x; auth_basic_user_file @DIR@/users; } }",
    ));
    // So that there are threads beside the workers.
    assert_eq!(get(&ringwall, "/a").text(), "hello");
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    // joe:secret
    connection
        .send("GET /closed HTTP/1.1\r\nHost: a\r\nAuthorization: Basic am9lOnNlY3JldA==\r\n\r\n");
    assert_eq!(connection.response("GET").status, 404);
    for (field, confined) in [("Seccomp:", "2"), ("NoNewPrivs:", "1")] {
        for (name, value) in of_each_thread(&ringwall, field) {
            if name != "ringwall" {
                assert_eq!(value, confined, "{name} {field}");
            }
        }
    }
    let names: Vec<String> = of_each_thread(&ringwall, "Seccomp:")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for name in ["worker 0", "files", "password 0", "log writer", "nursery"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    ringwall.complaint_with(&["sandbox", "seccomp in force"]);
    let folder = ringwall.site.file("www").display().to_string();
    ringwall.complaint_with(&["sandbox", "landlock in force", &folder]);
}

#[test]
fn a_file_outside_the_configured_folders_is_not_sent() {
    for (landlock, status) in [("on", 403), ("off", 200)] {
        let site = Site::new();
        file_in(&site, "www", "a", "hello");
        file_in(&site, "elsewhere", "secret", "key");
        symlink(site.file("elsewhere"), site.file("www/out")).expect("ours");
        let ringwall = site.start(&format!("landlock {landlock};\n{}", serving("www")));
        assert_eq!(get(&ringwall, "/a").text(), "hello");
        assert_eq!(get(&ringwall, "/out/secret").status, status, "{landlock}");
        assert_eq!(get(&ringwall, "/a").text(), "hello");
        if landlock == "on" {
            ringwall.complaint_with(&["/out/secret", "(13: Permission denied)", "\"landlock\""]);
        }
    }
}

#[test]
fn a_sandbox_that_is_off_is_said_to_be() {
    let site = Site::new();
    file_in(&site, "www", "a", "hello");
    let ringwall = site.start(&format!("landlock off; seccomp off;\n{}", serving("www")));
    assert_eq!(get(&ringwall, "/a").text(), "hello");
    for (name, value) in of_each_thread(&ringwall, "Seccomp:") {
        assert_eq!(value, "0", "{name}");
    }
    ringwall.complaint_with(&["sandbox", "seccomp off"]);
    ringwall.complaint_with(&["sandbox", "landlock off"]);
}

#[test]
fn a_reload_opens_the_folders_that_it_names_and_closes_the_others() {
    let mut site = Site::new();
    file_in(&site, "old", "a", "old");
    file_in(&site, "new", "a", "new");
    file_in(&site, "passwords", "users", "joe:{PLAIN}secret\n");
    symlink(site.file("old"), site.file("new/back")).expect("ours");
    site.port("HTTP");
    let mut ringwall = site.start(&serving("old"));
    assert_eq!(get(&ringwall, "/a").text(), "old");
    ringwall.rewrite(&http(
        "server { listen 127.0.0.1:@HTTP@; root @DIR@/new;\n\
         location /closed { auth_basic x; auth_basic_user_file @DIR@/passwords/users; } }",
    ));
    ringwall.reload();
    eventually("the new configuration holds", || {
        (get(&ringwall, "/a").text() == "new").then_some(())
    });
    assert_eq!(get(&ringwall, "/back/a").status, 403);
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    connection
        .send("GET /closed HTTP/1.1\r\nHost: a\r\nAuthorization: Basic am9lOnNlY3JldA==\r\n\r\n");
    assert_eq!(
        connection.response("GET").status,
        404,
        "the password is right"
    );
}

#[test]
fn a_root_that_is_a_link_may_be_given_another_target() {
    let site = Site::new();
    for release in ["1", "2", "3"] {
        file_in(&site, &format!("releases/{release}"), "a", release);
    }
    symlink(site.file("releases/1"), site.file("current")).expect("ours");
    let ringwall = site.start(&serving("current"));
    assert_eq!(get(&ringwall, "/a").text(), "1");
    for release in ["2", "3"] {
        let next = ringwall.site.file("next");
        symlink(ringwall.site.file(&format!("releases/{release}")), &next).expect("ours");
        fs::rename(&next, ringwall.site.file("current")).expect("ours");
        // Threads are replaced at most once a second.
        eventually("the new release is served", || {
            (get(&ringwall, "/a").text() == release).then_some(())
        });
    }
}

#[test]
fn logs_named_by_requests_are_written_inside_their_folder_and_a_new_folder_is_refused() {
    let site = Site::new();
    fs::create_dir(site.file("logs")).expect("ours");
    fs::create_dir(site.file("other")).expect("ours");
    let configuration = |folder: &str| {
        http(&format!(
            "server {{ listen 127.0.0.1:@HTTP@; access_log @DIR@/{folder}/$host.log;\n\
             return 200 {folder}; }}"
        ))
    };
    let mut ringwall = site.start(&configuration("logs"));
    assert_eq!(get(&ringwall, "/").text(), "logs");
    eventually("the line is there", || {
        (!ringwall.site.read("logs/a.log").is_empty()).then_some(())
    });
    ringwall.rewrite(&configuration("other"));
    ringwall.reload();
    let other = ringwall.site.file("other").display().to_string();
    ringwall.complaint_with(&["[emerg]", &other, "outside the sandbox", "SIGUSR2"]);
    assert_eq!(get(&ringwall, "/").text(), "logs", "the old one holds");
}
